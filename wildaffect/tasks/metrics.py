"""The official metrics of ABAW, from additive statistics.

Every metric is a function of sums over frames (moments for CCC, a confusion matrix for F1). Sums of videos add up, so
the score over a whole set, over one video and over a bootstrap sample of videos are all the same few lines.
"""

from __future__ import annotations

import numpy as np

# A denominator below this is rounding noise of constant signals (labels and predictions lie in [-1, 1]).
_TINY = 1e-12


def moments(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Sums from which CCC follows: `[6]` = n, sum x, sum y, sum xx, sum yy, sum xy (float64)."""
    x, y = np.asarray(predicted, np.float64).ravel(), np.asarray(target, np.float64).ravel()
    return np.array([len(x), x.sum(), y.sum(), x @ x, y @ y, x @ y])


def ccc_from_moments(sums: np.ndarray) -> float:
    """Concordance correlation coefficient of the frames whose `moments` add up to `sums`.

    With population moments (Lin 1989; the challenge's definition), `2 s_xy / (s_x^2 + s_y^2 + (m_x - m_y)^2)`; 0 if
    either side is constant (also if both are the same constant, where it is 0/0), and for no frames at all.
    """
    n, x, y, xx, yy, xy = (float(value) for value in sums)
    if n == 0:
        return 0.0
    x, y = x / n, y / n
    var_x, var_y, cov = xx / n - x * x, yy / n - y * y, xy / n - x * y
    if var_x < _TINY or var_y < _TINY:
        return 0.0
    return 2 * cov / (var_x + var_y + (x - y) ** 2)


def target_varies(sums: np.ndarray) -> bool:
    """Whether the labels behind `moments` differ at all; otherwise CCC says nothing."""
    n, y, yy = float(sums[0]), float(sums[2]), float(sums[4])
    return n > 0 and yy / n - (y / n) ** 2 >= _TINY


def confusion(predicted: np.ndarray, target: np.ndarray, classes: int) -> np.ndarray:
    """`[classes, classes]` counts, true class by row, predicted class by column."""
    index = np.asarray(target, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(index, minlength=classes * classes).reshape(classes, classes)


def f1_from_confusion(counts: np.ndarray) -> np.ndarray:
    """F1 of every class of a confusion matrix `[..., C, C]` -> `[..., C]`; 0 where a class never occurs.

    The macro F1 of the challenge is the plain mean of these over *all* classes.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    total = counts.sum(axis=-1) + counts.sum(axis=-2)
    return np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)


def macro_f1(counts: np.ndarray, *, present: bool = False) -> float:
    """Mean F1 of a confusion matrix `[C, C]`.

    Args:
        counts: True class by row, predicted class by column.
        present: Average over the classes that occur among the labels; otherwise over all, as the challenge does.
    """
    f1 = f1_from_confusion(counts)
    return float((f1[counts.sum(axis=1) > 0] if present else f1).mean())


def binary_counts(predicted: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`[W, 2, 2]` confusion matrices of W binary columns, from `[N, W]` zeros and ones where `mask` is true."""
    predicted, target, mask = np.asarray(predicted) > 0.5, np.asarray(target) > 0.5, np.asarray(mask, bool)
    both = (predicted & target & mask).sum(axis=0)
    false_alarm = (predicted & ~target & mask).sum(axis=0)
    miss = (~predicted & target & mask).sum(axis=0)
    neither = mask.sum(axis=0) - both - false_alarm - miss
    return np.stack([np.stack([neither, false_alarm], -1), np.stack([miss, both], -1)], -2)


def best_f1_threshold(probability: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Threshold of one binary column with the highest F1 on the given frames.

    Args:
        probability: `[N]`.
        target: `[N]` zeros and ones.

    Returns:
        (threshold, its F1); `probability >= threshold` is positive. (0.5, 0) where nothing is positive. Midway
        between two probabilities, so that it does not hang on a single frame's rounding.
    """
    probability, target = np.asarray(probability, np.float64), np.asarray(target) > 0.5
    if not target.any():
        return 0.5, 0.0
    order = np.argsort(-probability, kind="stable")
    ranked = probability[order]
    hits = np.cumsum(target[order])
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + target.sum())
    last_of_ties = np.append(ranked[1:] != ranked[:-1], True)
    best = int(np.argmax(np.where(last_of_ties, f1, -1)))
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2), float(f1[best])
