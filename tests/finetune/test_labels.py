"""Label sources, the class map, and how labels meet a store."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from checkpoints.errors import UserError
from finetune.labels import read_split
from preprocessing.faces import FacesStore
from preprocessing.write_faces import finish_store, write_shard
from tests.finetune.corpus import LATE, label_of, picture
from wildaffect.tasks import EXPRESSIONS


def expr_folder(root, files, split="Train_Set"):
    folder = root / "EXPR_Recognition_Challenge" / split
    folder.mkdir(parents=True, exist_ok=True)
    for id, labels in files.items():
        (folder / f"{id}.txt").write_text("\n".join([",".join(EXPRESSIONS), *map(str, labels)]) + "\n")
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A store of single pictures, as preprocessing makes of folders."""
    store = tmp_path_factory.mktemp("pictures")
    names = ["happy__1", "happy__2", "sad__1", "neutral__a", "b", "NF__1"] + [f"t{n}" for n in range(20)]
    write_shard(
        store,
        "a",
        [{"video": name, "subject": "", "frame": 1, "time_s": None, "image": picture(0, 1)} for name in names],
    )
    finish_store(store, made_by="test", config={}, image_size=40, problems=[])
    return FacesStore(store)


def test_every_target_is_its_frames_own(corpus):
    store = FacesStore(corpus.faces)
    split = read_split(store, corpus.labels)
    for part in (split.train, split.validation):
        for number, id in enumerate(part.ids):
            rows = part.rows[part.bounds[number] : part.bounds[number + 1]]
            frames = store.frame[rows]
            assert 2 not in frames  # annotated -1
            assert store.valid[rows].all() and len(np.unique(rows)) == len(rows)
            wanted = [label_of(id, int(frame)) for frame in frames]
            assert part.classes[part.bounds[number] : part.bounds[number + 1]].tolist() == wanted
    late = split.train.ids.index("two_right")
    assert store.frame[split.train.rows[split.train.bounds[late]]] == LATE
    # Each has a line more than frames; the late one's lines 1 (2 is masked) are before its first frame.
    assert "9 of 94 labelled training frames have no row in the store: left out" in split.notes
    assert "8 of 94 labelled training frames have no face: left out" in split.notes


def test_fingerprint_tells_labels_apart(corpus, tmp_path):
    store = FacesStore(corpus.faces)
    splits = [
        read_split(store, expr_folder(tmp_path / str(n), {"train0": [n] * 12, "val0": [1] * 12})) for n in (1, 1, 2)
    ]
    assert splits[0].fingerprint == splits[1].fingerprint != splits[2].fingerprint


def test_without_a_validation_split_videos_are_held_out(corpus, tmp_path):
    labels = expr_folder(tmp_path, {id: [1] * 12 for id in ("train0", "train1", "train2", "two", "two_right")})
    split = read_split(FacesStore(corpus.faces), labels)
    assert not set(split.train.ids) & set(split.validation.ids)
    assert any("held out" in note for note in split.notes)


def test_hard_labels_in_a_table(pictures, tmp_path):
    (tmp_path / "labels.csv").write_text(
        "video,frame,split,expression\nt0,1,train,4\nt1,1,train,-1\nt2,1,validation,7\n"
    )
    split = read_split(pictures, tmp_path / "labels.csv")
    assert (split.train.ids, split.train.classes.tolist()) == (["t0"], [4])
    assert (split.validation.ids, split.validation.classes.tolist()) == (["t2"], [7])


def test_named_classes_in_a_table(pictures, tmp_path):
    (tmp_path / "labels.csv").write_text(
        "video,label,split\nt0,happy,train\nt1,boredom,train\nt2,Contempt,val\nt3,NF,train\n"
    )
    with pytest.raises(UserError, match=r"class 'boredom'.*--class-map"):
        read_split(pictures, tmp_path / "labels.csv")
    (tmp_path / "map.json").write_text(json.dumps({"boredom": "Neutral", "happy": "Happiness"}))
    split = read_split(pictures, tmp_path / "labels.csv", class_map=tmp_path / "map.json")
    assert dict(zip(split.train.ids, split.train.classes.tolist(), strict=True)) == {"t0": 4, "t1": 0}
    assert split.validation.classes.tolist() == [7]
    assert split.class_map == {"happy": "Happiness", "boredom": "Neutral", "Contempt": "Other", "NF": None}
    assert "class 'NF' is left out" in split.describe()


def test_votes_in_parquet(pictures, tmp_path):
    columns = {"video": ["t0", "t1", "t2"], "frame": [1, 1, 1], "split": ["train", "train", "validation"]}
    columns |= {"neutral": [9, 0, 0], "contempt": [1, 2, 10], "NF": [0, 8, 0], "usage": ["x", "y", "z"]}
    pq.write_table(pa.table(columns), tmp_path / "votes.parquet")
    split = read_split(pictures, tmp_path / "votes.parquet")
    assert split.train.ids == ["t0"]
    np.testing.assert_allclose(split.train.targets[0], np.eye(8)[0] * 0.9 + np.eye(8)[7] * 0.1, atol=1e-6)
    assert split.class_map == {"neutral": "Neutral", "contempt": "Other", "NF": None}


def test_class_named_folders_without_splits(pictures, tmp_path):
    for name in ("happy/1", "happy/2", "sad/1", "neutral/a", "neutral/b"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "README.txt").write_text("pictures in folders, not annotations")
    split = read_split(pictures, tmp_path)
    assert sorted(split.train.ids + split.validation.ids) == ["b", "happy__1", "happy__2", "neutral__a", "sad__1"]


class TestFaults:
    def test_labels_of_videos_that_are_not_there(self, corpus, tmp_path):
        store = FacesStore(corpus.faces)
        labels = expr_folder(tmp_path, {"train0": [1] * 12, "gone": [1] * 3})
        labels = expr_folder(labels, {"val0": [1] * 12}, "Validation_Set")
        assert "1 of 2 training videos are not in the store: 'gone'" in read_split(store, labels).notes
        labels = expr_folder(tmp_path / "b", {"gone": [1]})
        expr_folder(labels, {"val0": [1] * 12}, "Validation_Set")
        with pytest.raises(UserError, match=r"none of the 1 training .* labels name 'gone'; the store holds 'train0'"):
            read_split(store, labels)

    def test_videos_without_labels(self, corpus, tmp_path):
        labels = expr_folder(tmp_path, {"train0": [1] * 12})
        labels = expr_folder(labels, {"val0": [1] * 12}, "Validation_Set")
        notes = read_split(FacesStore(corpus.faces), labels).notes
        assert "8 of 10 sequences of the store have no expression labels" in notes

    def test_empty_class(self, corpus):
        notes = read_split(FacesStore(corpus.faces), corpus.labels).notes
        assert any(note.startswith("no training frame shows Happiness, Sadness, Surprise, Other") for note in notes)

    def test_all_masked(self, corpus, tmp_path):
        labels = expr_folder(tmp_path, {"train0": [-1] * 12})
        labels = expr_folder(labels, {"val0": [1] * 12}, "Validation_Set")
        with pytest.raises(UserError, match=r"every training label .* is masked"):
            read_split(FacesStore(corpus.faces), labels)

    def test_label_outside(self, corpus, tmp_path):
        with pytest.raises(UserError, match=r"train0\.txt, line 3, column expression: 8 is not a valid expr label"):
            read_split(FacesStore(corpus.faces), expr_folder(tmp_path, {"train0": [1, 8]}))

    def test_no_labels_at_all(self, corpus, tmp_path):
        with pytest.raises(UserError, match="holds no expression labels to train on"):
            read_split(FacesStore(corpus.faces), tmp_path)
        with pytest.raises(UserError, match="does not exist"):
            read_split(FacesStore(corpus.faces), tmp_path / "nothing")

    def test_one_video_in_both_splits(self, corpus, tmp_path):
        labels = expr_folder(tmp_path, {"train0": [1] * 12})
        labels = expr_folder(labels, {"train0": [1] * 12}, "Validation_Set")
        with pytest.raises(UserError, match="'train0' are in the training and in the validation split"):
            read_split(FacesStore(corpus.faces), labels)

    def test_table_without_what_is_needed(self, pictures, tmp_path):
        (tmp_path / "a.csv").write_text("frame,label\n1,happy\n")
        (tmp_path / "b.csv").write_text("video,age\nt0,7\n")
        (tmp_path / "c.csv").write_text("video,frame,label\nt0,1,happy\nt0,1,sad\n")
        for name, message in (
            ("a", "has no column video"),
            ("b", "no expression labels"),
            ("c", "frame 1 of t0 is listed twice"),
        ):
            with pytest.raises(UserError, match=message):
                read_split(pictures, tmp_path / f"{name}.csv")


def test_recordings_can_be_left_out(pictures, tmp_path):
    labels = expr_folder(tmp_path / "release", {f"t{n}": [n] for n in range(1, 5)})
    (tmp_path / "leave.txt").write_text("# for a fold\nt2_right\nzz\n")
    with pytest.raises(UserError, match="1 of its 2 ids match nothing here: 'zz'"):
        read_split(pictures, labels, exclude=tmp_path / "leave.txt")
    (tmp_path / "leave.txt").write_text("# for a fold\nt2_right\n")
    split = read_split(pictures, labels, exclude=tmp_path / "leave.txt")
    assert sorted([*split.train.ids, *split.validation.ids]) == ["t1", "t3", "t4"]
    assert any("1 of 4 labelled videos are left out" in note for note in split.notes)
    (tmp_path / "leave.txt").write_text("t1\nt2\nt3\nt4\n")
    with pytest.raises(UserError, match="leaves no training video"):
        read_split(pictures, labels, exclude=tmp_path / "leave.txt")


def test_no_recording_trains_and_validates(pictures, tmp_path):
    labels = expr_folder(tmp_path, {"t1": [1], "video45_1": [2], "t2": [3]})
    expr_folder(tmp_path, {"t3": [1], "video45_6": [2]}, "Validation_Set")
    split = read_split(pictures, labels)
    assert split.train.ids == ["t1", "t2"] and split.validation.ids == ["t3"]
    assert any("1 of 3 training videos are not trained on" in note for note in split.notes)


def test_what_is_passed_over_in_votes_is_said(pictures, tmp_path):
    rows = ["t0,2,0,0,7", "t1,0,1,5,7", "t2,0,0,0,7", "t3,0,4,0,7"]
    (tmp_path / "votes.csv").write_text("\n".join(["video,neutral,happiness,unknown,age", *rows]) + "\n")
    notes = read_split(pictures, tmp_path / "votes.csv").notes
    assert "these columns of votes.csv are not named for a class: age" in notes
    assert "2 rows of Train_Set have no vote, or most of their votes are for classes left out" in notes


def test_no_label_in_a_named_column(pictures, tmp_path):
    (tmp_path / "labels.csv").write_text("video,label\nt0,happy\nt1,\nt2,-1\nt3,sad\nt4,sad\n")
    split = read_split(pictures, tmp_path / "labels.csv")
    assert sorted([*split.train.ids, *split.validation.ids]) == ["t0", "t3", "t4"]
