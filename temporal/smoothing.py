"""Smoothing of frame predictions, and how the filter width and the AU thresholds are chosen.

Box and Gaussian filters are applied to values and probabilities before decoding, the mode filter to decoded classes
(ling2024). Each sequence is smoothed separately; beyond its ends the edge value is repeated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from scipy import ndimage

from temporal.recipes import SmoothingKind, SmoothingUnit
from wildaffect.tasks import Task
from wildaffect.tasks.metrics import best_f1_threshold

# Widths to try, about a factor of 1.4 apart where smoothing helps (HSEmotion's notebooks: best near +-50 frames at
# 30 frames per second).
WIDTHS = {"frames": (5, 9, 15, 25, 35, 51, 75, 101, 151), "seconds": (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)}
Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Smoothing:
    """A smoothing filter.

    Attributes:
        kind: which filter.
        width: full width of a box or mode filter; of a Gaussian, twice its standard deviation.
        unit: of the width.
    """

    kind: SmoothingKind = "none"
    width: float = 0.0
    unit: SmoothingUnit = "frames"

    def frames(self, rate: float) -> int:
        """Width in frames, odd and at least 1, for a sequence of `rate` frames per second."""
        width = self.width * (rate if self.unit == "seconds" else 1)
        return max(1, 2 * int(width / 2) + 1)

    def on_values(self, values: np.ndarray, rate: float = 30.0) -> np.ndarray:
        """Filter `[T, C]` values or probabilities along time, at `rate` frames per second."""
        frames = self.frames(rate)
        if self.kind in ("none", "mode") or frames == 1 or not len(values):
            return values
        if self.kind == "box":
            return ndimage.uniform_filter1d(values, frames, axis=0, mode="nearest")
        return ndimage.gaussian_filter1d(values, frames / 2, axis=0, mode="nearest")

    def on_decoded(self, decoded: np.ndarray, rate: float = 30.0) -> np.ndarray:
        """Apply the mode filter to `[T, 1]` class numbers; if several are equally frequent, the smallest is taken."""
        frames = self.frames(rate)
        if self.kind != "mode" or frames == 1 or not len(decoded):
            return decoded
        classes = np.arange(int(decoded.max()) + 1)
        share = ndimage.uniform_filter1d((decoded == classes).astype(np.float64), frames, axis=0, mode="nearest")
        return np.argmax(share.round(9), axis=1)[:, None].astype(decoded.dtype)


RAW = Smoothing()


@dataclass(frozen=True)
class Predicted:
    """One labelled sequence: its id, values `[T, C]`, labels and mask `[T, W]`, frames per second."""

    id: str
    values: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    rate: float = 30.0


def decode(task: Task, item: Predicted, smoothing: Smoothing, thresholds: np.ndarray | None) -> np.ndarray:
    """Smooth and decode one sequence: `[T, W]`."""
    values = smoothing.on_values(item.values, item.rate)
    return smoothing.on_decoded(task.decode(values, thresholds), item.rate)


def statistics(
    task: Task, items: Sequence[Predicted], smoothing: Smoothing = RAW, thresholds: np.ndarray | None = None
) -> list[np.ndarray]:
    """Additive statistics of each sequence, predicted with this smoothing and these thresholds."""
    return [task.statistics(decode(task, item, smoothing, thresholds), item.labels, item.mask) for item in items]


def score(task: Task, items: Sequence[Predicted], smoothing: Smoothing = RAW) -> dict[str, Any]:
    """Official score of all sequences together."""
    return task.score_statistics(np.sum(statistics(task, items, smoothing), axis=0))


def choose_smoothing(task: Task, items: Sequence[Predicted], kind: SmoothingKind, unit: SmoothingUnit) -> Smoothing:
    """Choose the width with the best score on sequences that are neither trained on nor reported.

    If smoothing does not help, there is none.
    """
    if kind == "none" or not items:
        return RAW
    tried = [RAW, *(Smoothing(kind, width, unit) for width in WIDTHS[unit])]
    scores = [score(task, items, smoothing)["score"] for smoothing in tried]
    return simplest(tried, scores)


def simplest(choices: Sequence[Choice], scores: Sequence[float]) -> Choice:
    """The first choice within 0.002 of the best score: few videos cannot tell such choices apart."""
    return next(choice for choice, score in zip(choices, scores, strict=True) if score >= max(scores) - 0.002)


def choose_thresholds(items: Sequence[Predicted], smoothing: Smoothing) -> np.ndarray:
    """Choose AU thresholds `[12]` on sequences that are neither trained on nor reported.

    Thresholds that are fully tuned on one set of videos do worse on the next (one report: from .741 to .690, against
    .731 with 0.5 for all). So each threshold is halfway between 0.5 and the best one, and an AU with fewer than 20
    positive frames keeps 0.5.
    """
    values = np.concatenate([smoothing.on_values(item.values, item.rate) for item in items])
    labels, mask = (np.concatenate([getattr(item, name) for item in items]) for name in ("labels", "mask"))
    chosen = np.full(values.shape[1], 0.5)
    for column in range(values.shape[1]):
        seen = mask[:, column]
        if (labels[seen, column] > 0.5).sum() >= 20:
            best, _ = best_f1_threshold(values[seen, column], labels[seen, column])
            chosen[column] = (best + 0.5) / 2
    return chosen
