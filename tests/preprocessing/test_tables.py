import json

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from checkpoints.errors import UserError
from preprocessing.align import encode_jpeg
from preprocessing.faces import FacesStore
from preprocessing.items import TABLE_ROWS, Item
from preprocessing.run import Config, run
from preprocessing.sources import find_items
from preprocessing.tables import image_column, table_items, table_labels, table_pictures


def picture(k):
    return encode_jpeg(np.full((8, 8, 3), k % 200, np.uint8))


def table(count, column="image"):
    images = pa.array([{"bytes": picture(k), "path": None} for k in range(count)])
    return pa.table({"name": [f"n{k}" for k in range(count)], column: images, "anger": list(range(count))})


def write_stream(path, content):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, content.schema) as writer:
        writer.write_table(content, max_chunksize=50)


def write_file(path, content):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, content.schema) as writer:
        writer.write_table(content, max_chunksize=50)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("t.parquet", lambda path, content: pq.write_table(content, path, row_group_size=300)),
        ("t.arrow", write_stream),
        ("t.arrow", write_file),
    ],
)
def test_rows_come_in_order_in_parts(tmp_path, name, write):
    count = TABLE_ROWS + 100
    write(tmp_path / name, table(count))
    items, problems = find_items([tmp_path], crops=True)
    assert [item.rows for item in items] == [(0, TABLE_ROWS), (TABLE_ROWS, count)]
    assert problems == []
    pictures = [p for item in items for p in table_pictures(item)]
    assert [p.video for p in pictures] == [f"t_{k:07d}" for k in range(count)]
    assert pictures[TABLE_ROWS + 7].data == picture(TABLE_ROWS + 7)
    labels = table_labels(items[1])
    assert labels.column_names == ["name", "anger", "video", "frame"]
    assert labels.slice(7, 1).to_pylist() == [
        {"name": f"n{TABLE_ROWS + 7}", "anger": TABLE_ROWS + 7, "video": f"t_{TABLE_ROWS + 7:07d}", "frame": 1}
    ]


def test_the_column_of_pictures():
    assert image_column(table(1, "face").schema) == "face"
    assert image_column(pa.schema([("img", pa.binary())])) == "img"
    assert image_column(pa.schema([("text", pa.string()), ("blob", pa.binary())])) is None


def test_tables_of_one_name_do_not_mix(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        pq.write_table(table(3), tmp_path / folder / "t.parquet")
    items, _ = find_items([tmp_path], crops=True)
    assert [item.video for item in items] == ["a__t", "b__t"]


def test_a_table_without_pictures_is_no_source(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="nothing to read"):
        find_items([tmp_path], crops=True)


def test_a_damaged_table_is_a_problem_of_the_run(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nothing else")
    items, _ = find_items([tmp_path], crops=True)
    with pytest.raises(UserError, match="cannot be read as a table"):
        list(table_pictures(items[0]))


@pytest.mark.parametrize(
    "features",
    [
        *(["x"], {"label": "x"}, {"label": {"_type": "ClassLabel", "names": 3}}),
        *({"label": {"_type": "ClassLabel", "names": [1]}}, {"label": {"_type": "ClassLabel"}}),
        *({name: {"_type": "ClassLabel", "names": ["a"]}} for name in ("gone", "text")),
    ],
)
def test_what_a_table_says_of_its_classes_may_be_nonsense(tmp_path, features):
    content = pa.table({"image": [b"x"], "label": [0], "text": ["t"]})
    said = json.dumps({"info": {"features": features}})
    pq.write_table(content.replace_schema_metadata({"huggingface": said}), tmp_path / "t.parquet")
    (item,) = table_items(tmp_path / "t.parquet", "t.parquet")
    assert table_labels(item).select(["label", "text"]).to_pylist() == [{"label": 0, "text": "t"}]


def test_a_hugging_face_data_set(tmp_path, monkeypatch):
    """`hf:` takes whatever `datasets.load_dataset` takes; a folder stands for a name here."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "set").mkdir()
    pq.write_table(table(5), tmp_path / "set" / "train.parquet")
    items, _ = find_items([f"hf:{tmp_path / 'set'}"], crops=True)
    assert [item.rows for item in items] == [(0, 5)]
    assert [p.data for p in table_pictures(items[0])] == [picture(k) for k in range(5)]
    with pytest.raises(UserError, match="cannot be loaded"):
        find_items([f"hf:{tmp_path / 'none'}"], crops=True)


def test_pictures_beside_a_table(tmp_path):
    """`datasets` stores a folder of pictures as paths without bytes."""
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "a.jpg").write_bytes(picture(1))
    column = pa.array(
        [{"bytes": None, "path": "faces/a.jpg"}, {"bytes": None, "path": str(tmp_path / "faces" / "a.jpg")}],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    pq.write_table(pa.table({"image": column}), tmp_path / "t.parquet")
    run(Config(source=[str(tmp_path / "t.parquet")], out=tmp_path / "store", crops=True, workers=1))
    assert FacesStore(tmp_path / "store").valid.tolist() == [True, True]


def test_class_names_and_splits_of_a_data_set(tmp_path):
    rows = {"image": [{"bytes": picture(k), "path": None} for k in range(3)], "label": [1, 0, -1]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["happy", "sad"])})
    made = datasets.Dataset.from_dict(rows, features)
    (tmp_path / "set").mkdir()
    made.to_parquet(tmp_path / "set" / "train-00000-of-00001.parquet")
    made.to_parquet(tmp_path / "set" / "validation.parquet")
    run(Config(source=[str(tmp_path / "set")], out=tmp_path / "store", crops=True, workers=1))
    labels = pq.read_table(tmp_path / "store" / "labels.parquet").to_pydict()
    assert labels["label"] == ["sad", "happy", None] * 2
    assert labels["split"] == ["train"] * 3 + ["validation"] * 3


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("fer/val.parquet", "validation"),
        ("name/test/x.arrow", "test"),
        ("train.parquet", "train"),
        ("training.parquet", "train"),
        ("name/dev/x.arrow", "validation"),
        ("development-00000-of-00001.parquet", "validation"),
        ("testing_set.parquet", "test"),
        ("test/faces.parquet", None),
        ("my-test/faces-train.parquet", None),
    ],
)
def test_the_split_in_a_name(tmp_path, name, split):
    pq.write_table(table(2), tmp_path / "t.parquet")
    labels = table_labels(Item("t", tmp_path / "t.parquet", name, "table", rows=(0, 2)))
    assert labels.to_pydict().get("split") == (None if split is None else [split] * 2)


def test_a_data_set_is_called_without_its_place(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "set").mkdir()
    pq.write_table(table(2), tmp_path / "set" / "train.parquet")
    items, _ = find_items([f"hf:{tmp_path / 'set'}"], crops=True)
    assert [item.name for item in items] == ["set/train/set-train.arrow"]


def test_a_large_row_group_is_read_page_by_page(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [{"bytes": rng.bytes(8000), "path": None} for _ in range(3 * TABLE_ROWS)]
    whole = pa.table({"image": pictures})
    pq.write_table(whole, tmp_path / "t.parquet", row_group_size=len(pictures), write_batch_size=64)
    item = next(table_items(tmp_path / "t.parquet", "t.parquet"))
    before = pa.total_allocated_bytes()
    rows = table_pictures(item)
    first = next(rows)
    held = pa.total_allocated_bytes() - before
    assert held < 16e6  # of 49 MB
    assert [first.data, *(row.data for row in rows)] == [picture["bytes"] for picture in pictures[:TABLE_ROWS]]
