"""Valence and arousal derived from votes on emotions, by published norms of the emotions' names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Mean pleasure and arousal of "neutral", "happy", "surprised", "sad", "angry", "disgusted" and "fearful" in -1..1:
# Russell and Mehrabian 1977, Evidence for a three-factor theory of emotions, Journal of Research in Personality 11(3),
# 273-294, doi:10.1016/0092-6566(77)90037-X, table 2. Neutral is the scale's origin.
NORMS: dict[str, tuple[float, float]] = {
    "neutral": (0.0, 0.0),
    "happiness": (0.81, 0.51),
    "surprise": (0.40, 0.67),
    "sadness": (-0.63, -0.27),
    "anger": (-0.51, 0.59),
    "disgust": (-0.60, 0.35),
    "fear": (-0.64, 0.60),
}


def derive(votes: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Valence and arousal of faces that raters have voted on: the mean of the norms, weighted by the votes.

    Votes for what has no norm here (contempt, unknown, no face) do not count.

    Args:
        votes: `[N, K]` numbers of votes.
        names: `[K]` what the columns are votes for.

    Returns:
        `[N, 2]` float32; NaN where fewer than half of the votes have a norm.
    """
    norms = np.array([NORMS.get(name.lower(), (0.0, 0.0)) for name in names])
    counted = votes * np.array([name.lower() in NORMS for name in names])
    total = counted.sum(axis=1)
    enough = (total > 0) & (2 * total >= votes.sum(axis=1))
    means = counted @ norms / np.maximum(total, 1e-9)[:, None]
    return np.where(enough[:, None], means, np.nan).astype(np.float32)
