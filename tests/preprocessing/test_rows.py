import io
from array import array
from pathlib import Path

import numpy as np
import pytest

from checkpoints.errors import UserError
from preprocessing.align import decode_jpeg, encode_jpeg
from preprocessing.items import Item
from preprocessing.rows import Found, found_rows, numbered, ready_rows
from preprocessing.sources import find_items


def rows_of(folder, numbers):
    folder.mkdir(parents=True)
    for number in numbers:
        picture = np.full((112, 112, 3), 40 * number, np.uint8)
        (folder / f"{number:04d}.jpg").write_bytes(encode_jpeg(picture))
    problems = []
    items, _ = find_items([folder.parent], crops=True)
    return list(ready_rows(items[0], 112, problems)), problems


def test_frames_that_are_counted_from_0(tmp_path):
    rows, problems = rows_of(tmp_path / "clips" / "clip", [0, 1, 3])
    assert [row["frame"] for row in rows] == [1, 2, 3, 4]
    assert [row["image"] is None for row in rows] == [False, False, True, False]
    assert decode_jpeg(rows[0]["image"]).mean() < 5
    assert problems == ["its pictures are numbered from 0: picture 0 becomes frame 1, and so on"]


def test_frames_that_are_counted_from_1(tmp_path):
    rows, problems = rows_of(tmp_path / "clips" / "clip", [1, 2])
    assert [row["frame"] for row in rows] == [1, 2] and problems == []


def test_only_ascii_digits_number_a_frame(tmp_path):
    for name in ("1", "2", "²", "٣", "1_0"):
        (tmp_path / f"{name}.jpg").write_bytes(encode_jpeg(np.zeros((8, 8, 3), np.uint8)))
    item = Item("v", tmp_path, "v", "frames", subjects=("",))
    assert [(number, path.name) for number, _, path in numbered(item, print)] == [(1, "1.jpg"), (2, "2.jpg")]


def test_every_listed_subject_has_its_rows(tmp_path):
    """Nobody was found: both subjects have a row without a picture for every frame, and both are listed as problems."""
    found = Found(io.BytesIO(), times=array("d", [0.0, 0.04, 0.08]))
    item = Item("v", tmp_path / "v.mp4", "v.mp4", "video", subjects=("left", "right"))
    rows = list(found_rows(item, found))
    assert [(row["subject"], row["frame"]) for row in rows] == [(s, k) for s in ("left", "right") for k in (1, 2, 3)]
    assert all(row["image"] is None for row in rows)
    assert found.problems == ["no face found of subject 'left'", "no face found of subject 'right'"]


def test_a_crop_is_read_once_and_a_path_that_cannot_be_one_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(jpeg := encode_jpeg(np.zeros((112, 112, 3), np.uint8)))
    read, reads = Path.read_bytes, []
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path.name) or read(path))
    assert [row["image"] for row in ready_rows(Item("a", tmp_path / "a.jpg", "a", "picture"), 112, [])] == [jpeg]
    assert reads == ["a.jpg"]
    with pytest.raises(UserError, match="cannot be read as a picture: embedded null byte"):
        list(ready_rows(Item("a", tmp_path / "a\0.jpg", "a", "picture"), 112, []))
