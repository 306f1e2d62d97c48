"""Inputs of the kinds on which reading media, folders and lists of pictures once failed."""

import csv
import io
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from checkpoints.artifact import write_header
from checkpoints.errors import UserError
from features.import_features import read_rows
from preprocessing.align import encode_jpeg
from preprocessing.pictures import read_picture
from preprocessing.rows import numbered
from preprocessing.shard import Settings
from preprocessing.sources import find_items
from tests import processes
from tests.preprocessing.movies import pattern, write_movie
from tests.preprocessing.test_shard import Detector
from wildaffect.inference.clip import HEADER, KIND, SCHEMA, begin, clip_hash
from wildaffect.inference.clip_facts import Facts
from wildaffect.inference.clips import find_faces_of, list_clips

FRAMES = 12


def frame(number: int) -> np.ndarray:
    """A slowly moving disc."""
    y, x = np.mgrid[:60, :80]
    return np.where(np.hypot(y - 30, x - 30 - number)[..., None] < 15, 220, 40).repeat(3, 2).astype(np.uint8)


def write_frames(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        (folder / name).write_bytes(encode_jpeg(frame(number)))
    return folder


WAYS = {
    "four digits": [f"{k:04d}.jpg" for k in range(1, FRAMES + 1)],
    "three digits": [f"{k:03d}.jpg" for k in range(1, FRAMES + 1)],
    "unpadded": [f"{k}.jpg" for k in range(1, FRAMES + 1)],
    "prefix": [f"frame_{k:04d}.jpg" for k in range(1, FRAMES + 1)],
    "short prefix": [f"im{k}.jpg" for k in range(FRAMES)],
    "mixed case": [f"{k:04d}.{'jpg' if k % 2 else 'JPG'}" for k in range(1, FRAMES + 1)],
    "over 9999": [f"{k}.jpg" for k in range(9995, 9995 + FRAMES)],
    "from 0": [f"{k:05d}.jpg" for k in range(FRAMES)],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("beside", ["", "Thumbs.db", "001.json"])
def test_frames_numbered_in_any_way_are_one_video(tmp_path, way, beside):
    folder = write_frames(tmp_path / "clips" / "clip", WAYS[way])
    if beside:
        (folder / beside).write_bytes(b"{}" if beside.endswith("json") else b"\xd0\xcf\x11\xe0" + bytes(600))
    items, problems = find_items([tmp_path / "clips"], crops=False)
    assert [(item.video, item.kind) for item in items] == [("clip", "frames")] and problems == []
    rows = list(numbered(items[0], lambda problem: None))
    assert [row[0] for row in rows] == list(range(1, FRAMES + 1))
    assert [row[2].name for row in rows] == WAYS[way]
    (alone,), _ = list_clips([folder])
    assert (alone.video, alone.kind) == ("clip", "frames")


def test_a_collection_that_is_numbered_stays_one(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(FRAMES):
        small = rng.integers(0, 255, (6, 8, 3), np.uint8)
        picture = cv2.resize(small, (80, 60), interpolation=cv2.INTER_CUBIC)
        (folder / f"{k}.jpg").write_bytes(encode_jpeg(picture))
    items, problems = find_items([folder], crops=False)
    assert len(items) == FRAMES and {item.kind for item in items} == {"picture"}
    assert "do not look like the frames of one video" in problems[0]["problem"]


def test_missing_frames_before_the_first_stay_missing(tmp_path):
    folder = write_frames(tmp_path / "clip", [f"{k:05d}.jpg" for k in range(5, 5 + FRAMES)])
    ((item,), _) = find_items([folder], crops=True)
    assert [row[2] is None for row in numbered(item, print)] == [True] * 4 + [False] * FRAMES


def test_clips_of_all_kinds_are_found_and_the_rest_is_named(tmp_path):
    movie = write_movie(tmp_path / "clip.mp4", [pattern(k) for k in range(5)])
    for name in ("noending", "old.divx", "odd.xyz"):
        shutil.copy(movie, tmp_path / name)
    Image.fromarray(frame(0)).save(tmp_path / "still.jp2")
    pictures = [Image.fromarray(frame(k)) for k in range(4)]
    pictures[0].save(tmp_path / "anim.gif", save_all=True, append_images=pictures[1:], duration=40)
    write_frames(tmp_path / "seq", WAYS["prefix"])
    (tmp_path / "README").write_text("a text")
    (tmp_path / "paper.pdf").write_bytes(b"%PDF-1.7\n" + bytes(range(128, 256)) * 20)
    clips, left_out = list_clips([tmp_path])
    assert {(clip.video, clip.kind) for clip in clips} == {
        ("clip", "video"),
        ("noending", "video"),
        ("old", "video"),
        ("odd", "video"),
        ("still", "picture"),
        ("anim", "video"),
        ("seq", "frames"),
    }
    assert len(left_out) == 1 and "paper.pdf is left out" in left_out[0]


def test_clips_keep_their_names(tmp_path):
    for name in ("interview.mp4", "interview_2.mp4", "interview_left.mp4"):
        write_movie(tmp_path / name, [pattern(1)] * 2)
    clips, left_out = list_clips([tmp_path])
    assert [clip.video for clip in clips] == ["interview", "interview_2", "interview_left"] and left_out == []


def test_of_a_release_only_what_is_there_is_a_clip(tmp_path):
    """A listed video without a file is none, and one that cannot be read is an error, not a clip without faces."""
    folder = tmp_path / "6th ABAW Annotations" / "VA_Estimation_Challenge" / "Train_Set"
    folder.mkdir(parents=True)
    (tmp_path / "videos").mkdir()
    for name in ("a", "broken", "gone"):
        (folder / f"{name}.txt").write_text("valence,arousal\n0,0\n0,0\n")
    write_movie(tmp_path / "videos" / "a.mp4", [pattern(1)] * 2)
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"not a video")
    clips, left_out = list_clips([tmp_path])
    assert [clip.video for clip in clips] == ["a", "broken"] and left_out == []
    with pytest.raises(UserError, match=r"broken\.mp4 cannot be opened as a video"):
        find_faces_of(clips[1], tmp_path / "faces", Detector(), Settings())


def test_the_predictions_of_another_clip_are_not_overwritten(tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    facts = Facts(
        frames=1, seconds=0.0, rate=0.0, people=1, with_face=1.0, with_main_person=1.0, interpolated=0.0, face_size=9.0
    )
    header = {"kind": KIND, "schema": SCHEMA, "made_by": "test", "config": {}, "warnings": [], "files": {}}
    header |= {"parents": {"clip": "a", "heads": "h"}, "facts": facts.as_dict()}
    write_header(folder, HEADER, **header)
    begin(folder, {"clip": "a", "heads": "other"})
    write_header(folder, HEADER, **header)
    with pytest.raises(UserError, match="another clip of this name"):
        begin(folder, {"clip": "b", "heads": "h"})
    assert (folder / "predictions.json").exists()


def test_the_hash_of_a_folder_of_frames_follows_its_pictures(tmp_path):
    folder = write_frames(tmp_path / "clip", WAYS["prefix"])
    before = clip_hash(folder)
    assert clip_hash(folder) == before
    (folder / "frame_0003.jpg").write_bytes(encode_jpeg(frame(40)))
    assert clip_hash(folder) != before


def test_two_faces_of_one_picture_have_an_id_and_a_label_each(tmp_path):
    pictures = tmp_path / "Manually_Annotated_Images" / "1"
    pictures.mkdir(parents=True)
    for name in ("two.jpg", "one.jpg"):
        (pictures / name).write_bytes(encode_jpeg(frame(0)))
    header = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    rows = {
        "training": ["1/two.jpg,7,6,11,14,,1,0.5,0.2", "1/two.jpg,32,6,11,14,,2,-0.5,-0.2"],
        "validation": ["1/one.jpg,7,6,11,14,,0,0,0", "1/two.jpg,7,6,11,14,,1,0.25,0.2"],
    }
    for name, lines in rows.items():
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    items, problems = find_items([tmp_path], crops=False)
    assert [item.video for item in items] == ["two", "two~2", "one", "two~3"]
    assert [item.label.valence for item in items] == [0.5, -0.5, 0.0, 0.25]
    assert [item.box[0] for item in items] == [7, 32, 7, 7]
    assert all("another face of a picture" in problem["problem"] for problem in problems) and len(problems) == 2


DEEP = np.linspace(0, 1, 64)[None].repeat(32, 0)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ending", [".tiff", ".png"])
def test_pictures_of_any_depth_are_as_bright_as_they_are(bits, channels, ending):
    values = np.rint(DEEP * ((1 << bits) - 1)).astype(np.uint16)
    values = values if channels == 1 else values[..., None].repeat(3, 2)
    image = read_picture(cv2.imencode(ending, values)[1].tobytes())
    assert np.abs(image - 255 * DEEP[..., None]).max() < 2


@pytest.mark.parametrize("scale", [1, 255])
@pytest.mark.parametrize("channels", [1, 3])
def test_float_pictures_are_not_black(scale, channels):
    values = (DEEP * scale).astype(np.float32)
    if channels == 1:
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, "TIFF")
        data = buffer.getvalue()
    else:
        plain = [cv2.IMWRITE_TIFF_COMPRESSION, 1]  # OpenCV 4.10 compresses such pictures with errors
        data = cv2.imencode(".tiff", values[..., None].repeat(3, 2), plain)[1].tobytes()
    assert np.abs(read_picture(data).astype(int) - 255 * DEEP[..., None]).max() <= 1


def write_csv(folder: Path, rows: list[list[object]]) -> Path:
    with (folder / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def test_rows_without_a_face_are_missing(tmp_path):
    openface = [["frame", " success", " confidence", " AU01_r"], [1, 1, 0.9, 0.5], [2, 0, 0.1, 0.0], [3, 1, 0.8, 0.25]]
    rows = read_rows(write_csv(tmp_path, openface), "a")
    assert np.allclose(rows, [[0.9, 0.5], [np.nan, np.nan], [0.8, 0.25]], equal_nan=True)
    pandas = [["AU01", "AU02"], [1, 2], ["", ""], ["nan", 4], [5, "NaN"]]
    rows = read_rows(write_csv(tmp_path, pandas), "a")
    assert np.isnan(rows).any(axis=1).tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [["frame", "face_id", "x"], [1, 0, 5], [1, 1, 6]],
            "line 3, column frame: frame 1 is also in line 2: keep one face",
        ),
        ([["frame", "x"], [0, 5]], "line 2, column frame: 0: frames are whole numbers, counted from 1"),
        ([["frame", "x"], [1.5, 5]], "line 2, column frame: 1.5"),
        ([["frame", "x"], ["", 5]], "line 2, column frame: nan"),
        ([["x", "input"], [1, "clip.mp4"]], "line 2, column input: 'clip.mp4' is not a number"),
        ([["x", "y"], [1, "1_0"]], "line 2, column y"),
        ([["x", "y"], [1]], "row 1: 1 cells under 2 column names"),
        ([["", "x"], [0, 1]], "column 1 has no name"),
        ([["name;x"], ["a;1"]], "not separated by commas"),
    ],
)
def test_other_lists_of_features_are_refused_with_place_and_remedy(tmp_path, rows, message):
    with pytest.raises(UserError, match=r"a\.csv, .*" + message):
        read_rows(write_csv(tmp_path, rows), "a")


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "x.mp4", "--out", "o", "--batch-size", "-5"],
        ["predict", "x.mp4", "--out", "o", "--batch-size", "0"],
        ["app", "--port", "99999"],
        ["app", "--port", "-1"],
        ["app", "--max-megabytes", "0"],
        ["app", "--max-minutes", "nan"],
        ["app", "--max-waiting", "-2"],
    ],
)
def test_options_out_of_range_are_refused(words):
    done = processes.run("-m", "wildaffect.cli", *words)
    option, value = words[-2:]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    said = " ".join(done.stderr.split())
    assert f"{option} {value}: expected" in said or f"{option}: expected a number, found '{value}'" in said


CASES = Path(__file__).parents[2] / "shared" / "cases"


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
def test_the_shared_cases():
    clips, left_out = list_clips([CASES / "endings"])
    assert len(clips) == 12 and left_out == []
    clips, left_out = list_clips([CASES / "predict_mix"])
    assert {(clip.video, clip.kind) for clip in clips} == {("clip", "video"), ("seq", "frames")} and left_out == []
    items, _ = find_items([CASES / "frame_folders"], crops=False)
    assert len(items) == 8
    assert all(sum(row[2] is not None for row in numbered(item, lambda problem: None)) == FRAMES for item in items)
    assert [len(list(numbered(item, lambda problem: None))) for item in items] == [FRAMES] * 8
