import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from temporal.smoothing import RAW, Predicted, Smoothing, choose_smoothing, choose_thresholds, decode, score
from wildaffect.tasks import TASKS


def brute(values, frames, reduce):
    half = frames // 2
    padded = np.concatenate([np.repeat(values[:1], half, 0), values, np.repeat(values[-1:], half, 0)])
    return np.stack([reduce(padded[t : t + frames]) for t in range(len(values))])


@given(st.integers(1, 60), st.integers(1, 31), st.integers(0, 1000))
@settings(max_examples=50)
def test_filters_by_brute_force(length, width, seed):
    rng = np.random.default_rng(seed)
    values = rng.random((length, 3))
    frames = Smoothing("box", width).frames(30)
    assert frames % 2 == 1 and width - 1 <= frames <= width + 1
    np.testing.assert_allclose(Smoothing("box", width).on_values(values), brute(values, frames, lambda x: x.mean(0)))
    classes = rng.integers(0, 8, (length, 1))
    mode = brute(classes, frames, lambda x: np.array([np.bincount(x[:, 0]).argmax()]))
    np.testing.assert_array_equal(Smoothing("mode", width).on_decoded(classes), mode)


def test_gaussian_keeps_constants_and_sums():
    smoothing = Smoothing("gaussian", 9)
    np.testing.assert_allclose(smoothing.on_values(np.full((20, 2), 0.3)), 0.3)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(8), 50)
    np.testing.assert_allclose(smoothing.on_values(probabilities).sum(1), 1)


def test_widths_in_seconds_follow_the_frame_rate():
    smoothing = Smoothing("box", 1.0, "seconds")
    assert smoothing.frames(30) == 31 or smoothing.frames(30) == 29
    assert smoothing.frames(7.5) == 7
    assert RAW.on_values(np.ones((3, 1))).sum() == 3


def noisy(seed, length=600):
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.integers(0, 8, length // 50), 50)[:, None]
    values = np.eye(8)[labels[:, 0]] + rng.normal(0, 0.8, (length, 8))
    return Predicted(f"v{seed}", values, labels, np.ones_like(labels, bool), 30.0)


@pytest.mark.parametrize("kind", ["box", "gaussian", "mode"])
def test_a_width_that_helps_is_chosen(kind):
    task, items = TASKS["expr"], [noisy(seed) for seed in range(3)]
    chosen = choose_smoothing(task, items, kind, "frames")
    assert chosen.kind == kind and 9 <= chosen.width <= 51
    assert score(task, items, chosen)["score"] > score(task, items)["score"] + 0.1


def test_nothing_is_chosen_where_nothing_helps():
    clean = noisy(0)
    perfect = Predicted("v", np.eye(8)[clean.labels[:, 0]], clean.labels, clean.mask)
    assert choose_smoothing(TASKS["expr"], [perfect], "box", "frames") == RAW
    assert choose_smoothing(TASKS["expr"], [perfect], "none", "frames") == RAW


def test_thresholds_move_half_of_the_way_and_need_positives():
    rng = np.random.default_rng(0)
    labels = (rng.random((1000, 12)) < 0.2).astype(float)
    labels[:, 3] = 0
    values = np.where(labels > 0.5, 0.3, 0.1) + rng.random((1000, 12)) * 0.05
    chosen = choose_thresholds([Predicted("v", values, labels, np.ones_like(labels, bool))], RAW)
    assert chosen[3] == 0.5
    others = np.delete(chosen, 3)
    assert ((others > (0.15 + 0.5) / 2) & (others < (0.3 + 0.5) / 2 + 0.01)).all()


def test_probabilities_are_smoothed_before_decoding():
    """Two frames of .9 for one class and a frame between them of .6 for another: the mean decides, not the votes."""
    values = np.array([[0.9, 0.1], [0.4, 0.6], [0.9, 0.1]])
    item = Predicted("v", np.pad(values, ((0, 0), (0, 6))), np.zeros((3, 1)), np.ones((3, 1), bool))
    assert decode(TASKS["expr"], item, Smoothing("box", 3), None)[:, 0].tolist() == [0, 0, 0]
    assert decode(TASKS["expr"], item, RAW, None)[:, 0].tolist() == [0, 1, 0]
