"""One reader of tables, votes and class-named folders for all stages."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints.errors import UserError
from wildaffect.tasks import EXPR, EXPRESSIONS, TASKS
from wildaffect.tasks.class_map import ClassMap
from wildaffect.tasks.label_tables import votes_to_targets
from wildaffect.tasks.labels import TRAIN, VALIDATION, read_annotations, read_every_split
from wildaffect.tasks.split_words import TEST


def read(path, split=None, task="expr", spans=None, class_map=None):
    return read_annotations(path, TASKS[task], split, spans=spans, class_map=ClassMap(class_map))


def classes(track):
    """Frame -> class of the annotated frames."""
    return {int(row) + 1: int(track.labels[row, 0]) for row in np.flatnonzero(track.mask[:, 0])}


def table(path, text, **options):
    path.write_text(text, **options)
    return path


@pytest.mark.parametrize("content", ['{"a": "Boredom"}', "[1]", "{"])
def test_faulty_class_map(tmp_path, content):
    with pytest.raises(UserError, match=r"map\.json"):
        ClassMap(table(tmp_path / "map.json", content))


def test_votes():
    votes = np.array([[8, 2, 0, 0], [1, 1, 6, 0], [0, 0, 5, 5], [0, 0, 0, 0], [3, 0, 3, 4]], np.float32)
    targets = votes_to_targets(votes, [0, 4, 7, None])
    np.testing.assert_allclose(targets[0], np.eye(8)[0] * 0.8 + np.eye(8)[4] * 0.2)
    np.testing.assert_allclose(targets[1], np.eye(8)[0] / 8 + np.eye(8)[4] / 8 + np.eye(8)[7] * 0.75)
    np.testing.assert_allclose(targets[2], np.eye(8)[7])  # half are left out
    assert not targets[3].any()
    np.testing.assert_allclose(targets[4, [0, 7]], [0.5, 0.5])
    assert not votes_to_targets(np.array([[4.0, 0, 0, 6]]), [0, 4, 7, None]).any()  # most are


def test_votes_of_a_table_are_soft_and_hard(tmp_path):
    track = read(table(tmp_path / "v.csv", "video,frame,neutral,happiness,NF\na,1,8,2,0\na,3,0,1,9\na,4,1,9,0\n"))["a"]
    assert classes(track) == {1: 0, 4: 4}
    np.testing.assert_allclose(track.soft[[0, 3]][:, [0, 4]], [[0.8, 0.2], [0.1, 0.9]], atol=1e-6)
    assert not track.soft[2].any()


def test_class_named_folders(tmp_path):
    for name in ("train/happy/1", "train/happy/2", "train/NF/1", "val/sad/1", "val/neutral/a"):
        path = tmp_path / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    spans = dict.fromkeys(("train__happy__1", "train__happy__2", "val__sad__1", "a"), (1, 1))
    found = {id: classes(track)[1] for id, track in read(tmp_path, TRAIN, spans=spans).items()}
    assert found == {"train__happy__1": 4, "train__happy__2": 4}
    found = {id: classes(track)[1] for id, track in read(tmp_path, VALIDATION, spans=spans).items()}
    assert found == {"val__sad__1": 5, "a": 0}
    (tmp_path / "train" / "cats").mkdir()
    (tmp_path / "train" / "cats" / "1.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="class 'cats'"):
        read(tmp_path, TRAIN)


def test_all_labels_whatever_their_split(tmp_path):
    path = table(tmp_path / "labels.csv", "video,frame,label,split\nt0,1,happy,train\nt1,1,sad,val\nt2,1,sad,\n")
    assert read_every_split(path, EXPR, class_map=ClassMap()).keys() == {"t0", "t1", "t2"}
    for split, id in (("Train_Set", "a"), ("Validation_Set", "b")):
        folder = tmp_path / "release" / "EXPR_Recognition_Challenge" / split
        folder.mkdir(parents=True)
        (folder / f"{id}.txt").write_text(",".join(EXPRESSIONS) + "\n1\n")
    for root in (tmp_path / "release", tmp_path / "release" / "EXPR_Recognition_Challenge"):
        assert read_every_split(root, EXPR, class_map=ClassMap()).keys() == {"a", "b"}


def test_class_map_of_numbers(tmp_path):
    """A table in another order of classes, and a class that is left out; annotation files likewise."""
    path = table(tmp_path / "labels.csv", "video,frame,expression\nv,1,0\nv,2,1\nv,3,7\n")
    names = ClassMap(table(tmp_path / "map.json", json.dumps({"1": "Happiness", "Other": None})))
    assert classes(read_annotations(path, EXPR, class_map=names)["v"]) == {1: 0, 2: 4}
    assert names.used == {"1": "Happiness", "other": None}
    names = ClassMap(
        table(tmp_path / "map.json", json.dumps({"anger": "Anger", "1": "Happiness", "8": "Fear", "-1": "Sadness"}))
    )  # a number counts before its name
    assert [names.of_number(number, "") for number in (1, 1.0, 8, -1, 7)] == [4, 4, 3, 5, 7]
    (tmp_path / "expr").mkdir()
    table(tmp_path / "expr" / "v.txt", ",".join(EXPRESSIONS) + "\n1\n7\n-1\n0\n")
    track = read(tmp_path / "expr", class_map=table(tmp_path / "map.json", '{"1": "Happiness", "Other": null}'))["v"]
    assert classes(track) == {1: 4, 4: 0}


def test_rows_without_frames_label_whole_videos(tmp_path):
    spans = {"a": (1, 12), "two_right": (3, 10)}
    path = table(tmp_path / "labels.csv", "video,subject,label\na,,happy\ntwo,right,sad\n")
    found = read(path, spans=spans)
    assert classes(found["a"]) == dict.fromkeys(range(1, 13), 4)
    assert classes(found["two_right"]) == dict.fromkeys(range(3, 11), 5)
    with pytest.raises(UserError, match="no column frame"):
        read(path)
    with pytest.raises(UserError, match="several rows of a and no column frame"):
        read(table(path, "video,label\na,happy\na,sad\n"), spans=spans)


@pytest.mark.parametrize("word", ["train", "Training", "TRAIN_SET", "train_set ", "train-set"])
def test_words_for_training(tmp_path, word):
    path = table(tmp_path / "l.csv", f"video,frame,split,valence,arousal\nv,1,{word},0.1,0.2\nw,1,dev,0.1,0.2\n")
    assert list(read(path, TRAIN, "va")) == ["v"] and list(read(path, VALIDATION, "va")) == ["w"]


def test_rows_of_no_split_are_said(tmp_path):
    path = table(tmp_path / "l.csv", "video,frame,split,label\nv,1,train,happy\nw,1,,happy\nx,1,none,sad\n")
    names = ClassMap()
    assert list(read_annotations(path, EXPR, TRAIN, class_map=names)) == ["v"]
    assert names.lines()[-1] == "note: 2 rows of l.csv name no split: they are in none"
    assert len(read_annotations(path, EXPR, class_map=(every := ClassMap()))) == 3 and not every.notes


def test_splits_as_fer2013_names_them(tmp_path):
    path = table(
        tmp_path / "l.csv", "video,frame,label,Usage\nv,1,sad,Training\nw,1,sad,PublicTest\nx,1,sad,PrivateTest\n"
    )
    by_split = {split: list(read(path, split)) for split in (TRAIN, VALIDATION, TEST)}
    assert by_split == {TRAIN: ["v"], VALIDATION: ["w"], TEST: ["x"]}


def test_folders_of_no_split_are_said(tmp_path):
    for place in ("train/happy/a.jpg", "Eval/happy/b.jpg", "more/happy/c.jpg", "PublicTest/sad/d.jpg"):
        (tmp_path / place).parent.mkdir(parents=True)
        table(tmp_path / place, "")
    names = ClassMap()
    assert list(read_annotations(tmp_path, EXPR, TRAIN, class_map=names)) == ["train__happy__a"]
    assert names.lines()[-1] == "note: 1 pictures are in folders that name no split, and are in none: more/happy"
    assert list(read_annotations(tmp_path, EXPR, VALIDATION)) == ["PublicTest__sad__d"]
    assert list(read_annotations(tmp_path, EXPR, TEST)) == ["Eval__happy__b"]


@pytest.mark.parametrize("cell", ["2", "2.0", 2.0])
def test_a_subject_that_pandas_made_a_number(tmp_path, cell):
    rows = pa.table({"video": ["v", "w"], "subject": [cell, None], "frame": [1, 1], "label": ["sad", "sad"]})
    pq.write_table(rows, tmp_path / "l.parquet")
    assert list(read(tmp_path / "l.parquet")) == ["v_2", "w"]


def test_numbers_of_one_class_in_several_forms(tmp_path):
    names = ClassMap(table(tmp_path / "map.json", '{"1.0": "Happiness", "7": null}'))
    path = table(tmp_path / "l.csv", "video,frame,expression\nv,1,1\nv,2,1.00\nv,3,7.0\nv,4,2\n")
    assert classes(read_annotations(path, EXPR, class_map=names)["v"]) == {1: 4, 2: 4, 4: 2}
    with pytest.raises(UserError, match="twice"):
        ClassMap(table(tmp_path / "map.json", '{"1.0": "Happiness", "1": null}'))


FINE = "video,subject,frame,split,valence,arousal\nv,left,1,train,0.5,-0.25\nv,left,2,train,,\nv,left,3,train,0.25,-5\n"


@pytest.mark.parametrize(
    "text",
    [
        FINE,
        "\ufeff" + FINE,
        FINE.replace("\n", "\r\n"),
        FINE.replace(",1,t", ",1.0,t").replace(",2,t", ",2.0,t"),
        "Video,Subject,FRAME,Split,Valence,Arousal\n" + FINE.partition("\n")[2],
        "video, subject, frame, split, valence, arousal\n" + FINE.partition("\n")[2].replace("v,", "v ,"),
        ",".join(["", FINE.partition("\n")[0]])
        + "\n"
        + "".join(f"{n},{row}\n" for n, row in enumerate(FINE.split()[1:])),
        FINE.replace("train,,", "train,NA,nan"),
    ],
    ids=["plain", "mark", "crlf", "float frames", "upper case", "spaces", "index", "na"],
)
def test_what_pandas_and_spreadsheets_write(tmp_path, text):
    (track,) = read(table(tmp_path / "l.csv", text, newline=""), TRAIN, "va").values()
    np.testing.assert_array_equal(track.mask, [[1, 1], [0, 0], [1, 0]])
    np.testing.assert_allclose(track.labels[[0, 2], 0], [0.5, 0.25])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            FINE.replace(",3,t", ",2.5,t"),
            "row 3, column frame: .* from 1 to 9,999,999, found 2.5",
        ),
        (FINE.replace(",3,t", ",,t"), "row 3, column frame: .* but it is empty"),
        (FINE.replace(",1,t", ",0,t"), "row 1, column frame: .* from 1 to 9,999,999, found 0"),
        (FINE.replace(",3,t", ",2,t"), "frame 2 of v_left is listed twice"),
        (FINE.replace("0.25,", "1_0,"), "row 3, column valence: '1_0' is not a number"),
        (FINE.replace("0.25,", "３,"), "row 3, column valence: '３' is not a number"),
        (FINE.replace("0.25,", "inf,"), "row 3, column valence: 'inf' is not a number"),
        (FINE.replace("0.25,", "3.5e38,"), "row 3, column valence: .* is not a valid va label"),
        (FINE.replace("train,0.25", "tr,0.25"), "row 3, column split: 'tr' is not a split"),
        (FINE.replace(",", ";"), "not separated by commas"),
        (FINE + "v,left,4\n", "row 4: 3 cells under 6 column names"),
        ("", "is empty"),
        ("video,video,frame\n", "two columns called 'video'"),
    ],
)
def test_faults_are_named_with_their_row(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read(table(tmp_path / "l.csv", text), TRAIN, "va")


def test_a_table_in_another_encoding_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not UTF-8"):
        read(table(tmp_path / "l.csv", FINE, encoding="utf-16"), TRAIN, "va")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,frame,neutral\nt0,1,a\n", "row 1, column neutral: 'a' is not a number"),
        ("video,frame,neutral,happy\nt0,1,-1,2\n", "row 1, column neutral: -1 is not a number of votes"),
        ("video,frame,label\nt0,f1,happy\n", "row 1, column frame: 'f1' is not a number"),
        ("video,frame,label\nt0,1,4\n", "row 1, column label has the class '4'"),
        ("video,frame,expression\nv,1,8\n", "row 1, column expression: 8 is not a valid expr label"),
        ("video,frame,expression\nv,1,1.5\n", "1.5 is not a valid expr label"),
    ],
)
def test_expression_tables_with_faults(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read(table(tmp_path / "labels.csv", text))


def test_names_and_numbers_may_stand_in_one_column(tmp_path):
    path = table(tmp_path / "l.csv", "video,frame,expression\nv,1,4.0\nv,2,unknown\nv,3,Anger\nv,4,\nv,5,-1\n")
    assert classes(read(path)["v"]) == {1: 4, 3: 1}


def test_action_units_may_be_intensities_in_tables_alone(tmp_path):
    names = ",".join(TASKS["au"].columns)
    values = ["0.5", "1", "0", "-1", "", *["0"] * 7]
    (track,) = read(table(tmp_path / "au.csv", f"video,frame,{names}\nv,1,{','.join(values)}\n"), task="au").values()
    np.testing.assert_array_equal(track.mask[0], [True] * 3 + [False] * 2 + [True] * 7)
    assert track.labels[0, 0] == 0.5
    with pytest.raises(UserError, match=r"row 1, column AU1: 1\.5 is not a valid au label"):
        read(table(tmp_path / "au.csv", f"video,frame,{names}\nv,1,1.5{',0' * 11}\n"), task="au")
    (tmp_path / "au").mkdir()
    table(tmp_path / "au" / "v.txt", f"{names}\n0.5{',0' * 11}\n")
    with pytest.raises(UserError, match=r"line 2, column AU1: 0\.5 is not a valid au label"):
        read(tmp_path / "au", task="au")


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 50), st.floats(-1, 1, width=32)), unique_by=lambda row: row[0], min_size=1))
def test_csv_and_parquet_say_the_same(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("tables")
    columns = {"video": ["v"] * len(rows), "frame": [f for f, _ in rows], "valence": [v for _, v in rows]}
    columns["arousal"] = columns["valence"]
    pq.write_table(pa.table(columns), folder / "l.parquet")
    lines = [",".join(columns), *(f"v,{f},{v!r},{v!r}" for f, v in rows)]
    table(folder / "l.csv", "\n".join(lines) + "\n")
    one, two = (read(folder / f"l.{form}", task="va")["v"] for form in ("csv", "parquet"))
    np.testing.assert_array_equal(one.labels, two.labels)
    assert {f for f, _ in rows} == set((np.flatnonzero(one.mask[:, 0]) + 1).tolist())
