"""Frames are upright whatever their display matrix says."""

import struct

import numpy as np
import pytest
from PIL import Image

from tests.preprocessing.movies import flag, read, write_movie

QUARTERS = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


@pytest.mark.parametrize("matrix", QUARTERS, ids=str)
def test_turned_and_mirrored_videos_are_upright(tmp_path, matrix):
    """The matrix of a track header maps stored (x, y) to shown (a x + c y, b x + d y)."""
    image = flag()
    path = write_movie(tmp_path / "a.mp4", [image] * 3)
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 4 + 40  # version and flags, times, layer, volume ... then the matrix
    a, b, c, d = (value * 65536 for value in matrix)
    assert struct.unpack(">9i", data[at : at + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    a, b, c, d = matrix
    shown = {(a * x + c * y, b * x + d * y): image[y, x] for y in range(48) for x in range(64)}
    left, top = (min(place[axis] for place in shown) for axis in (0, 1))
    right = np.zeros((48, 64, 3) if a else (64, 48, 3), int)
    for (x, y), colour in shown.items():
        right[y - top, x - left] = colour
    frames, _ = read(path)
    assert frames[0].image.shape == right.shape and np.abs(frames[0].image - right).mean() < 6


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_a_turned_frame_with_data_that_pyav_does_not_know(tmp_path, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(flag()).save(tmp_path / "a.jpg", exif=exif, quality=95)
    frames, _ = read(tmp_path / "a.jpg")
    right = np.rot90(flag(), turn)
    assert frames[0].image.shape == right.shape and np.abs(frames[0].image.astype(int) - right).mean() < 6
