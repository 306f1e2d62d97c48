import numpy as np
import pytest
import torch

from wildaffect.tasks import AUS, EXPRESSIONS, TASKS


@pytest.mark.parametrize("name", TASKS)
def test_chance_is_the_best_constant(name):
    task = TASKS[name]
    rng = np.random.default_rng(0)
    labels = task.decode(rng.normal(size=(400, task.out_dim)) - 0.5).astype(np.float32)
    labels[rng.random(labels.shape) < 0.2] = task.marker
    mask = task.mask(labels)
    if name == "va":
        constants = [np.full((400, 2), value) for value in (-1, 0, 0.3)]
    elif name == "expr":
        constants = [np.full((400, 1), value) for value in range(8)]
    else:
        constants = [np.full((400, 12), value) for value in (0, 1)]
    assert task.chance(labels, mask) == pytest.approx(max(task.score(c, labels, mask)["score"] for c in constants))


def test_masks_are_per_element():
    np.testing.assert_array_equal(TASKS["va"].mask(np.array([[-5, 0.3], [0.1, -5]])), [[0, 1], [1, 0]])
    labels = np.zeros((1, 12))
    labels[0, 4] = -1
    assert TASKS["au"].mask(labels).sum() == 11


def test_values_and_decoding():
    va, expr, au = TASKS.values()
    assert va.activate(torch.tensor([100.0, -100.0])).tolist() == [1, -1]
    np.testing.assert_array_equal(va.decode(np.array([[1.5, -2]])), [[1, -1]])
    probabilities = expr.activate(torch.randn(3, 5, 8))
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(3, 5))
    assert expr.decode(np.eye(8)).tolist() == [[i] for i in range(8)]
    thresholds = np.linspace(0.1, 0.9, 12)
    np.testing.assert_array_equal(au.decode(np.full((1, 12), 0.5), thresholds)[0], thresholds <= 0.5)
    np.testing.assert_array_equal(au.decode(np.full((1, 12), 0.5)), np.ones((1, 12)))


def test_names_are_the_releases():
    assert TASKS["expr"].header == "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
    assert TASKS["au"].header == "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"
    assert TASKS["va"].header == "valence,arousal"
    assert (len(EXPRESSIONS), len(AUS)) == (8, 12)
    assert [(t.out_dim, t.label_width, t.marker) for t in TASKS.values()] == [(2, 2, -5), (8, 1, -1), (12, 12, -1)]
    assert TASKS["va"].format_row(np.array([0.5, -0.25])) == "0.500000,-0.250000"
    assert TASKS["expr"].format_row(np.array([3])) == "3"


def test_every_score_has_its_parts():
    for task in TASKS.values():
        score = task.score(
            np.zeros((1, task.label_width)), np.zeros((1, task.label_width)), np.ones((1, task.label_width), bool)
        )
        assert score["frames"] == 1
        assert ("ccc_valence" in score) if task.name == "va" else set(score["f1"]) == set(task.columns)
