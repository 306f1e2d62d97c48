import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints.errors import UserError
from wildaffect.tasks import TASKS
from wildaffect.tasks.labels import (
    TRAIN,
    VALIDATION,
    parse_locations,
    read_annotation_file,
    read_annotations,
    require_annotations,
)

HEADERS = {name: task.header for name, task in TASKS.items()}


def write(path, name, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([HEADERS[name], *lines]) + "\n")
    return path


def release(root):
    top = root / "6th ABAW Annotations"
    write(top / "VA_Estimation_Challenge" / "Train_Set" / "1-30-1280x720.txt", "va", ["0.1,-0.2", "-5,0.3"])
    write(top / "VA_Estimation_Challenge" / "Validation_Set" / "video2_left.txt", "va", ["1,-1"])
    write(top / "EXPR_Recognition_Challenge" / "Train_Set" / "102.txt", "expr", ["3", "-1", "0"])
    write(top / "AU_Detection_Challenge" / "train_set" / "102.txt", "au", [",".join("1" * 12), "-1" + ",0" * 11])
    return root


def test_release_tree_from_every_level(tmp_path):
    root = release(tmp_path)
    top = root / "6th ABAW Annotations"
    va = TASKS["va"]
    for start in (root, top, top / "VA_Estimation_Challenge"):
        tracks = read_annotations(start, va, TRAIN)
        assert list(tracks) == ["1-30-1280x720"]
        np.testing.assert_array_equal(tracks["1-30-1280x720"].mask, [[1, 1], [0, 1]])
        assert list(read_annotations(start, va, VALIDATION)) == ["video2_left"]
    folder = top / "VA_Estimation_Challenge" / "Validation_Set"
    assert list(read_annotations(folder, va)) == list(read_annotations(folder, va, VALIDATION)) == ["video2_left"]
    assert read_annotations(folder, va, TRAIN) == {}
    assert len(read_annotations(root, TASKS["expr"], TRAIN)["102"]) == 3
    assert read_annotations(root, TASKS["au"], TRAIN)["102"].mask.sum() == 23  # folder in lower case
    assert read_annotations(root, TASKS["au"], VALIDATION) == {}
    with pytest.raises(UserError, match="holds no au annotations in a folder Validation_Set"):
        require_annotations(root, TASKS["au"], VALIDATION)
    with pytest.raises(UserError, match="does not exist"):
        read_annotations(root / "none", va, TRAIN)


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("va", ["0.1,0.2", "0.1"], "line 3: expected 2 comma-separated"),
        ("va", ["0.1,0.2", "", "0.1,0.2"], "line 3: expected 2"),
        ("va", ["0.1,x"], "line 2, column arousal: 'x' is not a number"),
        ("va", ["0.1,nan"], "line 2, column arousal: 'nan' is not a number"),
        ("va", ["0.1,1.2"], "line 2, column arousal: 1.2 is not a valid va label"),
        ("expr", ["0", "8"], "line 3, column expression: 8 is not a valid expr label"),
        ("expr", ["0", "1.5"], "line 3, column expression: 1.5 is not a valid expr label"),
        ("expr", ["0", "1,2"], "line 3: expected 1 comma-separated"),
        ("au", ["0" + ",0" * 10 + ",2"], "line 2, column AU26: 2 is not a valid au label"),
    ],
)
def test_faults_name_the_line(tmp_path, name, lines, message):
    with pytest.raises(UserError, match=message):
        read_annotation_file(write(tmp_path / "a.txt", name, lines), TASKS[name])


def test_wrong_header_and_binary_files(tmp_path):
    path = write(tmp_path / "a.txt", "va", ["0,0"])
    with pytest.raises(UserError, match="line 1: expected the au header"):
        read_annotation_file(path, TASKS["au"])
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8 text"):
        read_annotation_file(path, TASKS["va"])
    path.write_bytes("\ufeffvalence,arousal\r\n0.5,0.5\r\n".encode())
    assert len(read_annotation_file(path, TASKS["va"])) == 1


@given(st.data())
@settings(max_examples=40)
def test_round_trip_of_random_files(tmp_path, data):
    name = data.draw(st.sampled_from(list(TASKS)))
    task = TASKS[name]
    value = {
        "va": st.one_of(st.just(-5.0), st.floats(-1, 1, width=32)),
        "expr": st.integers(-1, 7),
        "au": st.integers(-1, 1),
    }[name]
    rows = data.draw(st.lists(st.lists(value, min_size=task.label_width, max_size=task.label_width), max_size=20))
    track = read_annotation_file(write(tmp_path / "a.txt", name, [",".join(map(str, r)) for r in rows]), task)
    expected = np.array(rows, np.float32).reshape(len(rows), task.label_width)
    np.testing.assert_array_equal(track.labels, expected)
    np.testing.assert_array_equal(track.mask, expected != task.marker)


def test_mtl_file(tmp_path):
    folder = tmp_path / "MTL_Challenge"
    folder.mkdir()
    header = "image,valence,arousal,expression,aus\n"
    lines = ["video1/00002.jpg,0.5,-5,-1" + ",1" * 12, "video1/00004.jpg,-5,-5,7" + ",-1" * 12]
    (folder / "train_set.txt").write_text(header + "\n".join(lines) + "\n")
    for root in (tmp_path, folder, folder / "train_set.txt"):
        va = read_annotations(root, TASKS["va"], TRAIN)["video1"]
        np.testing.assert_array_equal(va.mask, [[0, 0], [1, 0], [0, 0], [0, 0]])
        expr = read_annotations(root, TASKS["expr"], TRAIN)["video1"]
        assert expr.labels[:, 0].tolist() == [-1, -1, -1, 7]
        assert read_annotations(root, TASKS["au"], TRAIN)["video1"].mask.sum() == 12
    assert read_annotations(tmp_path, TASKS["va"], VALIDATION) == {}
    (folder / "train_set.txt").write_text(header + lines[0] + "\n" + lines[0] + "\n")
    with pytest.raises(UserError, match="frame 2 of video1 is listed twice"):
        read_annotations(folder, TASKS["va"], TRAIN)
    (folder / "train_set.txt").write_text(header + "video1,1\n")
    with pytest.raises(UserError, match="line 2: expected 15"):
        read_annotations(folder, TASKS["va"], TRAIN)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_tables(tmp_path, form):
    import pyarrow as pa
    from pyarrow import csv, parquet

    table = pa.table(
        {
            "video": ["7", "7", "7", "8"],
            "subject": ["", "", "left", ""],
            "frame": [1, 3, 2, 1],
            "split": ["train", "train", "train", "validation"],
            "valence": [0.1, None, 0.3, 0.4],
            "arousal": [0.1, 0.2, 0.3, 0.4],
            "expression": [1, None, -1, 2],
        }
    )
    path = tmp_path / f"labels.{form}"
    (csv.write_csv if form == "csv" else parquet.write_table)(table, path)
    tracks = read_annotations(path, TASKS["va"], TRAIN)
    assert list(tracks) == ["7", "7_left"]
    np.testing.assert_array_equal(tracks["7"].mask, [[1, 1], [0, 0], [0, 1]])
    assert list(read_annotations(path, TASKS["va"], VALIDATION)) == ["8"]
    assert list(read_annotations(path, TASKS["expr"], TRAIN)) == ["7"]
    assert read_annotations(path, TASKS["au"], TRAIN) == {}
    (tmp_path / "bad.csv").write_text("video,frame,valence,arousal\na,1,2.0,0\n")
    with pytest.raises(UserError, match="row 1, column valence: 2 is not a valid va label"):
        read_annotations(tmp_path / "bad.csv", TASKS["va"])
    (tmp_path / "bad.csv").write_text("video,valence\na,1\n")
    with pytest.raises(UserError, match=r"lacks the column\(s\) arousal"):
        read_annotations(tmp_path / "bad.csv", TASKS["va"])


def refused(row, column, problem):
    return UserError(f"{row} {problem}")


@given(st.lists(st.from_regex(r"[a/ .é]{0,6}/?[0-9]{0,9}[./a9 \u00a0]{0,5}", fullmatch=True), max_size=6))
@settings(max_examples=300)
def test_image_locations_are_taken_apart_as_their_definition_says(locations):
    """However many there are and however they look: by pattern or one by one, the same comes out."""
    expected = []
    for location in locations:
        id, _, name = location.strip().rpartition("/")
        number = name.split(".", 1)[0]
        fine = number.isascii() and number.isdigit() and 0 < int(number) < 10**7
        expected.append((id, int(number)) if id and fine else None)
    bad = expected.index(None) if None in expected else None
    try:
        found = parse_locations(locations, refused)
    except UserError as error:
        assert str(error).startswith(f"{bad} expected an image location")
        return
    assert bad is None
    assert [(found.ids[code], frame) for code, frame in zip(found.codes, found.frames, strict=True)] == expected
    assert found.ids == list(dict.fromkeys(id for id, _ in expected))
    again = next((row for row, key in enumerate(expected) if key in expected[:row]), None)
    assert found.repeated() == again


def test_image_locations_of_one_kind_are_many_and_quick_to_read():
    locations = [f"v-{id}/{frame:05d}.jpg" for id in (2, 1) for frame in range(1, 4)] + ["x/y z/7", "v-1/0000004"]
    found = parse_locations(locations, refused)
    assert found.ids == ["v-2", "v-1", "x/y z"] and found.codes.tolist() == [0, 0, 0, 1, 1, 1, 2, 1]
    assert found.frames.tolist() == [1, 2, 3, 1, 2, 3, 7, 4]
    longest = f"v/{7:040d}.jpg"
    assert parse_locations([longest], refused).frames.tolist() == [7]
    with pytest.raises(UserError, match="0 expected an image location"):
        parse_locations([longest.replace("/", "/0")], refused)
    assert parse_locations([], refused).ids == [] and parse_locations([], refused).repeated() is None
