import csv

import numpy as np
import pyarrow.parquet as pq
import pytest

from checkpoints.errors import UserError
from preprocessing.items import Label
from preprocessing.labelled import LABELS, write_labels
from preprocessing.sources import find_items
from wildaffect.tasks.labels import read_annotations
from wildaffect.tasks.task import EXPRESSIONS, TASKS


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def items_of(root, crops=False):
    items, _ = find_items([root], crops=crops)
    return {item.video: item for item in items}


FACE = ["face_x", "face_y", "face_width", "face_height", "facial_landmarks"]
HEADER = ["subDirectory_filePath", *FACE, "expression", "valence", "arousal"]


@pytest.fixture
def affectnet_lists(tmp_path):
    rows = {
        "training": [["1/aa.jpg", 10, 20, 30, 40, "", 1, 0.5, 0.25], ["2/bb.jpg", 0, 0, 9, 9, "", 10, -2, -2]],
        "validation": [["1/cc.png", 1, 2, 3, 4, "", 7, -0.5, 0.75], ["1/dd.jpg", 1, 2, 3, 4, "", 8, -2, -2]],
    }
    for name, content in rows.items():
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([HEADER, *content])
        for row in content:
            touch(tmp_path / "Manually_Annotated" / "Manually_Annotated_Images" / row[0])
    return tmp_path


def test_affectnet_as_lists(affectnet_lists):
    items = items_of(affectnet_lists)
    assert set(items) == {"aa", "cc", "dd"}  # bb is no face
    assert items["aa"].box == (10, 20, 40, 60)
    assert items["aa"].label == Label("train", EXPRESSIONS.index("Happiness"), 0.5, 0.25)
    assert items["cc"].label == Label("validation", EXPRESSIONS.index("Other"), -0.5, 0.75)  # contempt
    assert items["dd"].label == Label("validation", None, None, None)


def test_a_bad_line_is_named(affectnet_lists):
    with (affectnet_lists / "training.csv").open("a") as file:
        file.write("1/ee.jpg,a,b\n")
    with pytest.raises(UserError, match=r"training\.csv, row 3"):
        items_of(affectnet_lists)


def test_affectnet_as_arrays(tmp_path):
    for split, number, values in (("train_set", 0, "4"), ("train_set", 17, "0"), ("val_set", 0, "6")):
        touch(tmp_path / split / "images" / f"{number}.jpg")
        (tmp_path / split / "annotations").mkdir(exist_ok=True)
        for name, value in (("exp", values), ("val", "-0.25"), ("aro", "0.5")):
            np.save(tmp_path / split / "annotations" / f"{number}_{name}.npy", value)
    items = items_of(tmp_path)
    assert set(items) == {"train_set_0", "train_set_17", "val_set_0"}
    assert items["train_set_0"].label == Label("train", EXPRESSIONS.index("Fear"), -0.25, 0.5)
    assert items["val_set_0"].label == Label("validation", EXPRESSIONS.index("Anger"), -0.25, 0.5)


@pytest.mark.parametrize("change", [str.upper, str.title])
def test_names_of_folders_and_lists_match_in_any_letter_case(tmp_path, change):
    (tmp_path / "lists").mkdir()
    with (tmp_path / "lists" / change("training.csv")).open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, ["1/aa.jpg", 10, 20, 30, 40, "", 1, 0.5, 0.25]])
    touch(tmp_path / "lists" / change("manually_annotated_images") / "1" / "aa.jpg")
    part = tmp_path / "arrays" / change("train_set")
    touch(part / change("images") / "0.jpg")
    (part / change("annotations")).mkdir()
    for name, value in (("exp", "4"), ("val", "-0.25"), ("aro", "0.5")):
        np.save(part / change("annotations") / f"0_{name}.npy", value)
    touch(tmp_path / "rafdb" / change("image") / change("original") / "train_1.jpg")
    (tmp_path / "rafdb" / "EmoLabel").mkdir()
    (tmp_path / "rafdb" / "EmoLabel" / change("list_patition_label.txt")).write_text("train_1.jpg 5\n")
    found = {name: [*items_of(tmp_path / name).values()] for name in ("lists", "arrays", "rafdb")}
    assert {name: [(item.video, item.label.split) for item in items] for name, items in found.items()} == {
        "lists": [("aa", "train")],
        "arrays": [("train_set_0", "train")],
        "rafdb": [("train_1", "train")],
    }


def test_an_array_that_is_a_pickle_is_not_loaded(tmp_path):
    touch(tmp_path / "train_set" / "images" / "0.jpg")
    (tmp_path / "train_set" / "annotations").mkdir()
    np.save(tmp_path / "train_set" / "annotations" / "0_exp.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(UserError, match=r"0_exp\.npy"):
        items_of(tmp_path)


def test_rafdb(tmp_path):
    for name in ("train_00001", "test_0002"):
        touch(tmp_path / "basic/Image/original" / f"{name}.jpg")
        touch(tmp_path / "basic/Image/aligned" / f"{name}_aligned.jpg")
    labels = tmp_path / "basic/EmoLabel/list_patition_label.txt"
    labels.parent.mkdir()
    labels.write_text("train_00001.jpg 5\ntest_0002.jpg 7\n")
    items = items_of(tmp_path)
    assert items["train_00001"].label == Label("train", EXPRESSIONS.index("Sadness"))
    assert items["test_0002"].label == Label("validation", EXPRESSIONS.index("Neutral"))
    assert "original" in items["train_00001"].name
    assert "aligned" in items_of(tmp_path, crops=True)["train_00001"].name
    for text, message in (
        ("train_00001.jpg 9\n", "line 1"),
        ("train_00001.jpg 5\ntrain_00001.pg 6\n", "line 2: train_00001 is listed twice"),
    ):
        labels.write_text(text)
        with pytest.raises(UserError, match=message):
            items_of(tmp_path)


def test_labels_are_read_by_the_trainings(affectnet_lists, tmp_path):
    items, _ = find_items([affectnet_lists], crops=False)
    assert write_labels(tmp_path, items)
    assert pq.read_table(tmp_path / LABELS).column_names == [
        "video",
        "frame",
        "split",
        "expression",
        "valence",
        "arousal",
    ]
    train = read_annotations(tmp_path / LABELS, TASKS["expr"], "Train_Set")
    assert {id: track.labels.tolist() for id, track in train.items()} == {"aa": [[4.0]]}
    validation = read_annotations(tmp_path / LABELS, TASKS["va"], "Validation_Set")
    assert {id: track.labels.tolist() for id, track in validation.items()} == {"cc": [[-0.5, 0.75]]}


def test_an_affectnet_list_without_its_column_of_pictures_is_refused(tmp_path):
    (tmp_path / "training.csv").write_text("<html>subDirectory_filePath,face_x\n1/a.jpg,3\n")
    with pytest.raises(UserError, match=r"training\.csv is not a list of AffectNet: .* subDirectory_filePath"):
        items_of(tmp_path)


def test_an_affectnet_list_without_its_header_is_refused(affectnet_lists):
    path = affectnet_lists / "validation.csv"
    path.write_text(path.read_text().split("\n", 1)[1])
    with pytest.raises(UserError, match=r"validation\.csv, line 1: expected the header of AffectNet's lists"):
        items_of(affectnet_lists)


@pytest.mark.parametrize("place", ["/aa.jpg", "../aa.jpg", "1/../../aa.jpg"])
def test_an_affectnet_list_names_pictures_below_its_folder(affectnet_lists, place):
    with (affectnet_lists / "training.csv").open("a") as file:
        file.write(f"{place},10,20,30,40,,1,0.5,0.25\n")
    with pytest.raises(
        UserError, match=r"training\.csv, row 3, column subDirectory_filePath: expected a picture below"
    ):
        items_of(affectnet_lists)


def test_nothing_labelled_writes_nothing(tmp_path):
    touch(tmp_path / "in" / "a.jpg")
    items, _ = find_items([tmp_path / "in"], crops=False)
    assert not write_labels(tmp_path, items)
    assert not (tmp_path / LABELS).exists()
