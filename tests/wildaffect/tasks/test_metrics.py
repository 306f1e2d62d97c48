import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score
from torchmetrics.regression import ConcordanceCorrCoef

from wildaffect.tasks import TASKS
from wildaffect.tasks.metrics import (
    best_f1_threshold,
    binary_counts,
    ccc_from_moments,
    confusion,
    f1_from_confusion,
    moments,
)


def ccc(x, y):
    return ccc_from_moments(moments(x, y))


def unbiased_ccc(x, y):
    """torchmetrics' CCC: unbiased variances; the challenge's population moments differ by the factor (n - 1) / n."""
    metric = ConcordanceCorrCoef()
    metric.update(torch.tensor(x), torch.tensor(y))
    return float(metric.compute())


@pytest.mark.parametrize("n", [300, 5000])
def test_ccc_equals_torchmetrics_up_to_its_bias(n):
    rng = np.random.default_rng(n)
    y = rng.uniform(-1, 1, n)
    for x in (y + rng.normal(0, 0.3, n), -y, 0.2 * y + 0.5, rng.uniform(-1, 1, n)):
        assert ccc(x, y) == pytest.approx(unbiased_ccc(x, y), abs=2 / n)


def test_ccc_is_the_challenges_definition():
    x, y = np.array([0.1, 0.4, -0.3, 0.9]), np.array([0.0, 0.5, -0.5, 0.4])
    expected = 2 * np.mean((x - x.mean()) * (y - y.mean())) / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    assert ccc(x, y) == pytest.approx(expected, abs=1e-12)
    assert ccc(y, y) == pytest.approx(1) and ccc(-y, y) < 0


@pytest.mark.parametrize("constant", [0.0, 0.3, -1.0])
def test_ccc_of_constants_is_zero(constant):
    y = np.random.default_rng(0).uniform(-1, 1, 1000)
    flat = np.full(1000, constant)
    assert ccc(flat, y) == 0 and ccc(y, flat) == 0 and ccc(flat, flat) == 0
    assert ccc([], []) == 0 and ccc([0.5], [0.5]) == 0


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=60))
@settings(max_examples=100)
def test_expression_score_equals_scikit_learn_with_absent_classes(pairs):
    predicted, target = np.array(pairs).T
    counts = confusion(predicted, target, 8)
    np.testing.assert_array_equal(counts, confusion_matrix(target, predicted, labels=range(8)))
    expected = f1_score(target, predicted, labels=range(8), average=None, zero_division=0)
    np.testing.assert_allclose(f1_from_confusion(counts), expected)
    score = TASKS["expr"].score(predicted[:, None], target[:, None], np.ones((len(target), 1), bool))
    assert score["score"] == pytest.approx(expected.mean()) and score["frames"] == len(target)


@given(st.integers(0, 2**32 - 1), st.integers(1, 50))
@settings(max_examples=50)
def test_action_unit_score_equals_scikit_learn_per_element(seed, n):
    rng = np.random.default_rng(seed)
    predicted, target = rng.integers(0, 2, (2, n, 12))
    target[:, 3] = 0  # an AU that never occurs
    mask = rng.random((n, 12)) < 0.7
    f1 = TASKS["au"].score(predicted, target, mask)["f1"]
    for column, value in enumerate(f1.values()):
        seen = mask[:, column]
        expected = f1_score(target[seen, column], predicted[seen, column], zero_division=0) if seen.any() else 0
        assert value == pytest.approx(expected)


def test_statistics_of_videos_add_up():
    rng = np.random.default_rng(1)
    for task in TASKS.values():
        values = rng.normal(size=(50, task.out_dim))
        decoded = task.decode(values)
        labels = task.decode(rng.normal(size=(50, task.out_dim)))
        mask = rng.random(labels.shape) < 0.8
        whole = task.score(decoded, labels, mask)
        halves = sum(task.statistics(decoded[half], labels[half], mask[half]) for half in (slice(20), slice(20, 50)))
        assert task.score_statistics(halves)["score"] == pytest.approx(whole["score"], abs=1e-12)


def test_what_labels_can_tell():
    """Constant valence tells nothing, nor does a class or an AU that never occurs."""
    mask = np.ones((4, 2), bool)
    labels = np.array([[0.5, 0.1], [0.5, 0.2], [0.5, 0.3], [0.5, -5]])
    for masked in (mask, labels != -5):
        assert TASKS["va"].shown(TASKS["va"].statistics(labels, labels, masked)).tolist() == [False, True]
    assert not TASKS["va"].shown(TASKS["va"].statistics(labels, labels, ~mask)).any()
    classes = np.array([[1], [1], [6], [-1]])
    shown = TASKS["expr"].shown(TASKS["expr"].statistics(np.full((4, 1), 3), classes, classes >= 0))
    assert np.flatnonzero(shown).tolist() == [1, 6]
    units = np.zeros((4, 12), int)
    units[2, 5], units[3, 7] = 1, -1
    shown = TASKS["au"].shown(TASKS["au"].statistics(np.ones((4, 12)), units, units >= 0))
    assert np.flatnonzero(shown).tolist() == [5]


def test_best_threshold_by_brute_force():
    rng = np.random.default_rng(2)
    for _ in range(20):
        probability = rng.random(40).round(1)
        target = rng.random(40) < 0.3
        threshold, best = best_f1_threshold(probability, target)
        every = [f1_score(target, probability >= t, zero_division=0) for t in np.linspace(0, 1, 21)]
        assert best == pytest.approx(max(every))
        assert f1_score(target, probability >= threshold, zero_division=0) == pytest.approx(best)
    assert best_f1_threshold(probability, np.zeros(40)) == (0.5, 0.0)


def test_binary_counts_layout():
    counts = binary_counts(np.array([[1], [1], [0]]), np.array([[1], [0], [1]]), np.ones((3, 1), bool))
    np.testing.assert_array_equal(counts, [[[0, 1], [1, 1]]])
