"""Animated pictures are read like videos."""

import numpy as np
import pytest
from PIL import Image

from preprocessing.folders import kind_of
from preprocessing.pictures import FORMATS, picture_kind
from preprocessing.video import count_frames, read_times
from tests.preprocessing.movies import number_of, pattern, read

MOVING = ["webp", "gif", "png", *(["avif"] if "AVIF" in FORMATS else [])]


@pytest.mark.parametrize("suffix", MOVING)
def test_animated_pictures(tmp_path, suffix):
    pictures = [Image.fromarray(pattern(k)) for k in range(6)]
    path = tmp_path / f"a.{suffix}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[40, 40, 200, 40, 40, 40])
    frames, problems = read(path)
    assert [number_of(frame.image) for frame in frames] == list(range(6))
    assert np.allclose([frame.time_s for frame in frames], [0, 0.04, 0.08, 0.28, 0.32, 0.36])
    assert problems == [] and count_frames(path, print) == 6
    assert read_times(path) == [frame.time_s for frame in frames]
    assert kind_of(path) == picture_kind(path) == "video"
    pictures[0].save(path)
    assert kind_of(path) == picture_kind(path) == "picture"


@pytest.mark.parametrize("suffix", MOVING)
def test_what_is_transparent_in_an_animation_is_white(tmp_path, suffix):
    pictures = []
    for k in range(3):
        layered = np.zeros((48, 64, 4), np.uint8)
        layered[..., 0] = 200
        layered[10:30, 10 + 10 * k : 20 + 10 * k, 3] = 255
        pictures.append(Image.fromarray(layered))
    path = tmp_path / f"a.{suffix}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40, disposal=2, lossless=True)
    for k, frame in enumerate(read(path)[0]):
        right = np.full((48, 64, 3), 255)
        right[10:30, 10 + 10 * k : 20 + 10 * k] = (200, 0, 0)
        assert np.abs(frame.image - right).mean() < 4


def test_the_picture_beside_an_animation_is_not_a_frame(tmp_path):
    pictures = [Image.fromarray(pattern(k)) for k in (9, 1, 2)]
    pictures[0].save(tmp_path / "a.png", save_all=True, default_image=True, append_images=pictures[1:], duration=40)
    assert [number_of(frame.image) for frame in read(tmp_path / "a.png")[0]] == [1, 2]
    pictures[0].save(tmp_path / "b.png", save_all=True, default_image=True, append_images=pictures[1:2], duration=40)
    assert kind_of(tmp_path / "b.png") == "picture"


def test_an_animation_that_breaks_off_is_reported(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)) for _ in range(6)]
    path = tmp_path / "a.png"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, problems = read(path)
    assert 1 < len(frames) < 6 and (frames[0].image == np.asarray(pictures[0])).all()
    assert [f"reading stopped after frame {len(frames)}" in problem for problem in problems] == [True]
