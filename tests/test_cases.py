"""Inputs on which the project once gave a wrong number or none, each of its kind and with the right value.

Most are tested beside what reads them; the others are below, from the files of a user to what comes out.

Tested elsewhere, in `tests/`:

* A repeated or reversed time stamp, a poster or preview beside the film, HDR, a changing frame size:
  `preprocessing/test_video.py`.
* Folders of frames, also beside a video, containers with other endings, faces of one picture: `test_cases_media.py`.
* A listed subject that is never found: `preprocessing/test_shard.py` and `test_tracks.py`; in training and in a
  challenge file, `temporal/test_run.py` and `test_submit.py`.
* Tables of labels as pandas and spreadsheets write them: `wildaffect/tasks/test_label_tables.py`.
* Features of other programs: `test_cases_media.py`, `features/test_import_features.py`.
"""

import csv

import numpy as np
import pyarrow.parquet as pq
import pytest

from features.cache import FeatureCache
from features.import_features import ImportFeatures
from features.import_features import main as import_features
from finetune.labels import read_split
from preprocessing.align import encode_jpeg
from preprocessing.faces import FacesStore
from preprocessing.labelled import write_labels
from preprocessing.shard import Settings, make_shard
from preprocessing.sources import find_items, make_groups
from preprocessing.video import read_frames
from preprocessing.write_faces import finish_store, write_shard
from tests.preprocessing.movies import write_movie
from tests.preprocessing.test_shard import Detector, scene
from wildaffect.tasks import TASKS
from wildaffect.tasks.labels import TRAIN, VALIDATION, read_annotations


def faces_of(source, out):
    """A store of a source, by a detector that sees a face in every bright square."""
    items, _ = find_items([source], crops=False)
    logs = [make_shard(out, group, Settings(), Detector()) for group in make_groups(items)]
    write_labels(out, items)
    problems = [problem for log in logs for problem in log["problems"]]
    finish_store(out, made_by="test", config={}, image_size=112, problems=problems)
    return FacesStore(out)


def test_boxes_lie_on_the_face_in_frames_of_any_size(tmp_path):
    parts = []
    for number, scale in enumerate((1, 2)):
        pictures = [np.kron(scene(40 + k), np.ones((scale, scale, 1), np.uint8)) for k in range(8)]
        parts.append(write_movie(tmp_path / f"{number}.ts", pictures, options={"bf": "0", "crf": "10"}).read_bytes())
    movie = tmp_path / "in" / "a.ts"
    movie.parent.mkdir()
    movie.write_bytes(b"".join(parts))
    faces_of(movie.parent, tmp_path / "store")
    (shard,) = (tmp_path / "store" / "data").iterdir()
    boxes = pq.read_table(shard)["box"].to_pylist()
    frames = list(read_frames(movie, lambda problem: None))  # as the annotated video shows them
    assert len(boxes) == len(frames) == 16
    for frame, box in zip(frames, boxes, strict=True):
        columns = np.flatnonzero(frame.image[60].mean(axis=1) > 150)
        assert abs((box[0] + box[2]) / 2 - columns.mean()) < 4


def test_two_faces_of_one_picture_have_a_row_and_a_label_each(tmp_path):
    pictures = tmp_path / "Manually_Annotated_Images" / "1"
    pictures.mkdir(parents=True)
    (pictures / "two.jpg").write_bytes(encode_jpeg(scene(20, 150)))
    (pictures / "one.jpg").write_bytes(encode_jpeg(scene(100)))
    header = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    rows = {
        "training": ["1/two.jpg,20,40,40,40,,1,0.5,0.2", "1/two.jpg,150,40,40,40,,2,-0.5,-0.2"],
        "validation": ["1/one.jpg,100,40,40,40,,0,0.25,0"],
    }
    for name, lines in rows.items():
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    store = faces_of(tmp_path, tmp_path / "store")
    assert {sequence.id for sequence in store.sequences()} == {"two", "two~2", "one"} and store.valid.all()
    split = read_split(store, tmp_path / "store" / "labels.parquet")
    assert (split.train.ids, split.validation.ids) == (["two", "two~2"], ["one"])
    assert split.train.classes.tolist() == [4, 5] and split.validation.classes.tolist() == [0]


@pytest.mark.parametrize(
    ("named", "faces", "seen"),
    [
        (("left", "right"), (150,), {"v_left": 0, "v_right": 12}),  # the one on the left turns away
        (("left", "right"), (20,), {"v_left": 12, "v_right": 0}),
        (("left", "right"), (), {"v_left": 0, "v_right": 0}),
        (("right",), (150,), {"v_right": 12}),
        (("right",), (20,), {"v_right": 0}),
        (("right",), (20, 150), {"v_right": 12}),
    ],
)
def test_every_listed_subject_has_rows_and_position_names_them(tmp_path, named, faces, seen):
    folder = tmp_path / "release" / "6th ABAW Annotations" / "VA_Estimation_Challenge" / "Train_Set"
    folder.mkdir(parents=True)
    for subject in named:
        (folder / f"v_{subject}.txt").write_text("valence,arousal\n" + "0,0\n" * 13)
    (tmp_path / "release" / "videos").mkdir()
    movie = tmp_path / "release" / "videos" / "v.mp4"
    write_movie(movie, [scene(*faces)] * 12, options={"crf": "10"})
    store = faces_of(tmp_path / "release", tmp_path / "store")
    found = {s.id: store.valid[s.start : s.start + s.length] for s in store.sequences()}
    assert {id: (len(valid), int(valid.sum())) for id, valid in found.items()} == {
        id: (12, count) for id, count in seen.items()
    }


def test_a_table_says_the_same_in_stages_2_and_3(tmp_path):
    rows = [("v", "", k, "train", "Happiness") for k in (1, 2.0)] + [("v", "", 3, "Training", "4")]
    rows += [("w", "", 1, "val", "sadness"), ("w", "", 2, "dev", ""), ("w", "", 3, "test", "Fear")]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video", "subject", "frame", "split", "expression"), *rows])
    picture = encode_jpeg(np.zeros((112, 112, 3), np.uint8))
    row = {"subject": "", "time_s": 0.0, "image": picture}
    write_shard(tmp_path / "store", "a", [{"video": id, "frame": k, **row} for id in "vw" for k in (1, 2, 3)])
    finish_store(tmp_path / "store", made_by="test", config={}, image_size=112, problems=[])
    split = read_split(FacesStore(tmp_path / "store"), tmp_path / "labels.csv")
    for part, name, right in ((split.train, TRAIN, [4, 4, 4]), (split.validation, VALIDATION, [5])):
        (track,) = read_annotations(tmp_path / "labels.csv", TASKS["expr"], name).values()
        assert part.classes.tolist() == track.labels[track.mask].astype(int).tolist() == right


@pytest.mark.parametrize(
    "rows",
    [
        [["frame", " success", " face_id", " AU01_r"], [1, 1, 0, 0.5], [2, 0, 0, 0.0], [3, 1, 0, 0.25]],  # OpenFace
        [["AU01"], [0.5], [""], [0.25]],  # pandas writes a missing value as an empty cell
        [["frame", "AU01"], [1, 0.5], [3, 0.25]],
    ],
)
def test_frames_in_which_another_program_found_no_face_are_flagged(tmp_path, rows):
    (tmp_path / "others").mkdir()
    with (tmp_path / "others" / "v.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    row = {"video": "v", "subject": "", "time_s": 0.0, "image": encode_jpeg(np.zeros((112, 112, 3), np.uint8))}
    write_shard(tmp_path / "store", "a", [{**row, "frame": k} for k in (1, 2, 3)])
    finish_store(tmp_path / "store", made_by="test", config={}, image_size=112, problems=[])
    places = {"source": tmp_path / "others", "faces": tmp_path / "store", "out": tmp_path / "cache"}
    import_features(ImportFeatures(name="x", **places))
    read = FeatureCache(tmp_path / "cache").read("v", 3)
    assert read.valid.tolist() == [True, False, True]
    assert read.features[:, -1].tolist() == [0.5, 0.5, 0.25]
