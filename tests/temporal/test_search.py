"""The search for post-processing: it finds what helps, and nested folds see through what does not."""

import numpy as np
import pytest

from temporal.search import Search, Setting
from temporal.smoothing import RAW, Predicted
from wildaffect.tasks import TASKS


def walk(rng, length, width):
    """Smooth noise `[length, 2]` in about -1 to 1."""
    kernel = np.hanning(width)
    noise = rng.normal(size=(length + width - 1, 2))
    return np.stack([np.convolve(part, kernel / np.linalg.norm(kernel), "valid") for part in noise.T], axis=1) / 3


def search(errors, seed=0, shown=1.0, videos=20, folds=4, length=80, width=40):
    """A search over heads that predict valence and arousal with errors of these sizes.

    Labels are visible to the heads by `shown`; with 0 they are noise.
    """
    rng, items = np.random.default_rng(seed), []
    for number in range(videos):
        labels = walk(rng, length, width).clip(-1, 1)
        values = [shown * labels + error * rng.normal(size=labels.shape) for error in errors]
        mask = np.ones_like(labels, bool)
        items.append([Predicted(f"v{number}", value, labels, mask, 10.0) for value in values])
    own = Setting((1.0,) * len(errors), (RAW,) * len(errors))
    return Search(TASKS["va"], items, own, np.arange(videos) % folds)


def test_what_helps_is_chosen_and_measured():
    setting, found = search([0.6]).result()
    assert found["parts"] == ["smoothing"] and setting.smoothing[0].width > 0
    assert found["nested"]["gain"] > 0.2 and found["nested"]["gain_low"] > 0.1
    assert found["nested"]["score"] == pytest.approx(found["as_they_are"]["score"] + found["nested"]["gain"])


def test_a_bad_head_loses_its_share():
    setting, found = search([0.2, 2.0, 2.0]).result()
    assert "shares" in found["parts"] and found["nested"]["gain_low"] > 0
    assert setting.shares[0] > 0.8 and sum(setting.shares) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
def test_labels_that_are_noise_win_nothing_in_nested_folds_but_seem_to_without(seed):
    _, found = search([1.0] * 6, seed, shown=0.0, videos=10, folds=5, length=30, width=15).result()
    assert found["naive"]["gain"] > 0.03
    assert found["nested"]["gain"] < 0.01
    assert found["nested"]["gain_low"] < 0


def test_a_fold_does_not_choose_for_itself():
    """Labels of one fold are turned round: what it is decoded with stays the same."""
    searches = [search([0.6, 0.9], seed=1) for _ in range(2)]
    for same in (items for items, fold in zip(searches[1].items, searches[1].folds, strict=True) if fold == 2):
        same[0].labels[:] *= -1  # the heads share them
    plans = [s.plan(frozenset({2})) for s in searches]
    settings = [s.fit(("smoothing", "shares"), frozenset({2})) for s in searches]
    assert plans[0] == plans[1] and settings[0] == settings[1]
    judged = [s.judged(s.own, np.flatnonzero(s.folds == 2)) for s in searches]
    assert not np.allclose(*judged)


def test_thresholds_are_chosen_for_action_units_alone():
    rng = np.random.default_rng(0)
    items = []
    for number in range(12):
        labels = (rng.random((60, 12)) < 0.3).astype(float)
        values = np.where(labels > 0.5, 0.35, 0.1) + 0.05 * rng.random(labels.shape)
        items.append([Predicted(f"v{number}", values, labels, np.ones_like(labels, bool), 10.0)])
    setting, found = Search(TASKS["au"], items, Setting((1.0,), (RAW,)), np.arange(12) % 3).result()
    assert found["parts"] == ["thresholds"] and found["nested"]["gain"] > 0.3
    assert ((setting.thresholds > 0.2) & (setting.thresholds < 0.45)).all()
    assert "thresholds" not in search([0.5]).plans[-1]
