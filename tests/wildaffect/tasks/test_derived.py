"""Valence and arousal from votes."""

import numpy as np
import pytest

from wildaffect.tasks.derived import NORMS, derive

NAMES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")


def test_one_voice_is_its_norm():
    votes = np.eye(len(NAMES))
    found = derive(votes, NAMES)
    for row, name in enumerate(NAMES):
        if name in NORMS:
            assert found[row] == pytest.approx(NORMS[name])
        else:
            assert np.isnan(found[row]).all()


def test_a_mixture_is_between_and_half_the_votes_must_count():
    happy, neutral, contempt = (NAMES.index(name) for name in ("happiness", "neutral", "contempt"))
    votes = np.zeros((3, len(NAMES)))
    votes[0, [happy, neutral]] = 5, 5
    votes[1, [happy, contempt]] = 5, 5
    votes[2, [happy, contempt]] = 4, 6
    found = derive(votes, NAMES)
    assert found[0] == pytest.approx([0.405, 0.255])
    assert found[1] == pytest.approx([0.81, 0.51])
    assert np.isnan(found[2]).all()
    assert np.isnan(derive(np.zeros((1, len(NAMES))), NAMES)).all()
