"""Which frames an epoch draws, and their crops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoints.framing import OURS
from finetune.frames import EpochDraw, LabelledFrames, combined, training_frames
from preprocessing.align import encode_jpeg
from preprocessing.faces import FacesStore
from preprocessing.views import row_views
from preprocessing.write_faces import finish_store, write_shard
from wildaffect.training.images import RandomCrop, resize


def frames_of(sizes, seed=0):
    bounds = np.cumsum([0, *sizes])
    classes = np.random.default_rng(seed).integers(0, 8, bounds[-1])
    return LabelledFrames(np.arange(bounds[-1]), np.eye(8, dtype=np.float32)[classes], bounds, list(map(str, sizes)))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 12), st.integers(0, 3))
def test_every_video_gives_its_share_and_no_frame_twice(sizes, most, seed):
    frames = frames_of(sizes)
    draw = EpochDraw(frames, most, seed)
    drawn = [draw(0, place) for place in range(draw.count)]
    assert len(set(drawn)) == len(drawn)
    video = np.searchsorted(frames.bounds, drawn, side="right") - 1
    wanted = [min(size, most) if most else size for size in sizes]
    assert np.bincount(video, minlength=len(sizes)).tolist() == wanted


@given(st.integers(1, 30), st.integers(1, 10))
def test_all_frames_are_seen_before_one_is_seen_again(size, most):
    draw = EpochDraw(frames_of([size]), most, 0)
    seen = [draw(epoch, place) for epoch in range(size) for place in range(draw.count)]
    for start in range(0, len(seen) - size + 1, size):
        assert sorted(seen[start : start + size]) == list(range(size))


def test_draws_do_not_depend_on_the_order_asked():
    frames = frames_of([9, 30, 4])
    forward, backward = EpochDraw(frames, 5, 1), EpochDraw(frames, 5, 1)
    pairs = [(epoch, place) for epoch in range(4) for place in range(forward.count)]
    assert [forward(*pair) for pair in pairs] == [backward(*pair) for pair in reversed(pairs)][::-1]


def test_mass_counts_each_video_as_often_as_it_is_drawn():
    targets = np.eye(8, dtype=np.float32)[[0] * 100 + [1] * 5]
    frames = LabelledFrames(np.arange(105), targets, np.array([0, 100, 105]), ["long", "short"])
    assert EpochDraw(frames, 10, 0).mass[:2] == pytest.approx([10 / 15, 5 / 15])
    assert EpochDraw(frames, 0, 0).mass[:2] == pytest.approx([100 / 105, 5 / 105])


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.integers(0, 12))
def test_spaced(sizes, most):
    frames = frames_of(sizes)
    few = frames.spaced(most)
    assert np.diff(few.bounds).tolist() == [min(size, most) if most else size for size in sizes]
    assert (np.diff(few.rows) > 0).all()
    assert np.array_equal(few.targets, frames.targets[few.rows])


def test_training_crops_are_cut_by_landmarks(tmp_path):
    """A whole crop of a row is its view, resized."""
    rng = np.random.default_rng(0)
    points = OURS.template(112) + np.array([[4, 9], [-3, 2], [0, 0], [5, -6], [2, 7]])
    row = {"video": "v", "subject": "", "time_s": 0.0, "landmarks": points.ravel().tolist()}
    pictures = [encode_jpeg(rng.integers(0, 256, (112, 112, 3), np.uint8)) for _ in range(3)]
    write_shard(tmp_path, "v", [row | {"frame": k + 1, "image": jpeg} for k, jpeg in enumerate(pictures)])
    finish_store(tmp_path, made_by="test", config={}, image_size=112, problems=[])
    store, frames = FacesStore(tmp_path), frames_of([3])
    draw = EpochDraw(frames, 0, 0)
    data = training_frames([store], frames, draw, view="eyes_landmarks", crop=RandomCrop(24, (1.0, 1.0)), seed=0)
    for place in range(3):
        (view,) = row_views(store, draw(0, place), ["eyes_landmarks"])
        crop = data[(0, place)]["images"]
        whole = resize(view, 24).int()  # with torch 2.8 torchvision rounds a few pixels the other way
        assert min((crop - side).abs().max() for side in (whole, whole.flip(-1))) <= 1


def test_two_stores_in_one_set(tmp_path):
    """Rows count through the stores, and a frame has targets of its own labels only."""
    stores = []
    for number, grey in enumerate((40, 200)):
        picture = encode_jpeg(np.full((112, 112, 3), grey, np.uint8))
        row = {"video": f"v{number}", "subject": "", "time_s": 0.0, "landmarks": OURS.template(112).ravel().tolist()}
        folder = tmp_path / str(number)
        folder.mkdir()
        write_shard(folder, "v", [row | {"frame": k + 1, "image": picture} for k in range(2)])
        finish_store(folder, made_by="test", config={}, image_size=112, problems=[])
        stores.append(FacesStore(folder))
    units = LabelledFrames(np.array([1]), np.full((1, 12), 0.25, np.float32), np.array([0, 1]), ["units"])
    frames = combined(frames_of([2]), units, len(stores[0]))
    assert frames.ids == ["2", "units"] and frames.rows.tolist() == [0, 1, 3]
    crop = RandomCrop(24, (1.0, 1.0))
    data = training_frames(stores, frames, lambda _epoch, place: place, view="full", crop=crop, seed=0)
    greys = [data[(0, place)]["images"].float().mean().item() for place in range(3)]
    assert greys == pytest.approx([40, 40, 200], abs=2)
    known = np.isfinite(np.stack([data[(0, place)]["targets"] for place in range(3)]))
    assert known[:2, :8].all() and known[2, 8:].all() and known.sum() == 2 * 8 + 12
