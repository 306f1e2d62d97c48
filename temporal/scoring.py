"""Official scores of predicted sequences, with confidence intervals and the score of chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wildaffect.tasks import TASKS, Task
from wildaffect.tasks.folds import group_of

BOOTSTRAP = 1000


@dataclass(frozen=True)
class Scored:
    """Predictions and labels of the annotated frames of one sequence.

    Attributes:
        id: of the sequence.
        frames: `[T]` frame numbers.
        decoded: `[T, W]` as in a label file.
        labels: `[T, W]`.
        mask: `[T, W]` bool, true where annotated.
        values: `[T, C]` values or probabilities, if they are known (a challenge file has classes only).
    """

    id: str
    frames: np.ndarray
    decoded: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    values: np.ndarray | None = None


def score_sequences(task: Task, items: Sequence[Scored]) -> dict[str, Any]:
    """Compute the official score over all annotated frames together, and its parts.

    Returns:
        `score`; `ccc_valence` and `ccc_arousal`, or `f1` by name; `frames`; `videos`; `chance`, the score of the best
        constant prediction; `ci_low` and `ci_high`, see :func:`bootstrap`. A video counts with all its subjects and
        parts as one.
    """
    by_video: dict[str, np.ndarray] = {}
    for item in items:
        statistics = task.statistics(item.decoded, item.labels, item.mask)
        video = group_of(item.id)
        by_video[video] = by_video[video] + statistics if video in by_video else statistics
    stacked = np.stack([by_video[video] for video in sorted(by_video)])
    low, high = bootstrap(task, stacked) or (None, None)
    labels, mask = (np.concatenate([getattr(item, field) for item in items]) for field in ("labels", "mask"))
    return {
        **task.score_statistics(stacked.sum(axis=0)),
        "chance": task.chance(labels, mask),
        "ci_low": low,
        "ci_high": high,
        "videos": len(stacked),
    }


def bootstrap(task: Task, by_video: np.ndarray) -> tuple[float, float] | None:
    """The 95 % percentile interval of a score over draws of videos; None where all draws score the same.

    Then (one video, or a perfect prediction) they cannot tell how far another set of videos would differ.
    """
    return percentiles(drawn(task, by_video))


def drawn(task: Task, by_video: np.ndarray) -> np.ndarray:
    """Scores `[BOOTSTRAP]` of draws of videos with replacement, the same draws for every prediction of these videos.

    A draw may hold no example of a class (or AU, or only constant labels), and then says nothing about it. An F1 of 0
    would be wrong, and leaving the class out would flatter where it is a hard one: it takes its value from another draw
    that shows it. A class that no video shows is 0, as in the score.

    Args:
        task: what is scored.
        by_video: `[V, ...]` additive statistics of each video.
    """
    count, rng = len(by_video), np.random.default_rng(0)
    draws = np.tensordot(rng.multinomial(count, np.full(count, 1 / count), size=BOOTSTRAP), by_video, axes=1)
    values = np.array([list(parts_of(task.score_statistics(sums)).values()) for sums in draws])
    shown = np.array([task.shown(sums) for sums in draws])
    for part, known in zip(values.T, shown.T, strict=True):
        if known.any():
            part[~known] = rng.choice(part[known], size=int((~known).sum()))
    return values.mean(axis=1)


def percentiles(values: np.ndarray) -> tuple[float, float] | None:
    """The ends of the middle 95 % of drawn values; None if they are all the same."""
    if np.ptp(values) < 1e-9:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def interval(result: Mapping[str, Any], digits: int = 3) -> str:
    """The interval of a score as text, or that there is none."""
    if result["ci_low"] is None:
        return "none: all draws score the same"
    return f"{result['ci_low']:.{digits}f} to {result['ci_high']:.{digits}f}"


def describe(results: Mapping[str, dict[str, Any]]) -> str:
    """Format the scores of several tasks as text; all three are added up, as in the MTL challenge."""
    lines = []
    for name, result in results.items():
        raw = f", {result['raw']:.4f} without smoothing and thresholds" if "raw" in result else ""
        lines.append(
            f"{name:5} {result['score']:.4f} (95 % interval {interval(result, 4)}; {result['videos']} videos, "
            f"{result['frames']:,} frames){raw}; best constant {result['chance']:.4f}"
        )
        lines.append("      " + "  ".join(f"{key} {value:.3f}" for key, value in parts_of(result).items()))
    if results.keys() == TASKS.keys():
        lines.append(f"P_MTL {p_mtl(results):.4f}, the sum of the three scores")
    return "\n".join(lines)


def p_mtl(results: Mapping[str, Mapping[str, Any]]) -> float:
    """Score of the MTL challenge: the sum of the three tasks' scores."""
    return float(sum(results[name]["score"] for name in TASKS))


def describe_run(summary: Mapping[str, Any]) -> str:
    """Format the scores of a training run as text: of the held-out videos and of the validation videos."""
    lines = []
    for part, what in (("held_out", "held out (they chose, so it is too high)"), ("validation", scored_on(summary))):
        tasks = {name: summary[part][name] for name in TASKS if name in (summary[part] or {})}
        lines.append(f"{what}:\n{describe(tasks)}" if tasks else what)
    return "\n".join(lines)


def scored_on(summary: Mapping[str, Any]) -> str:
    """What the validation scores of a run are worth."""
    if not summary["validation"]:
        return "no score on videos used neither for training nor for selection"
    if summary.get("leaked"):
        return f"validation ({summary['leaked']} sequences taught or chose the encoder, so it is too high)"
    return "validation (used neither for training nor for selection)"


def parts_of(result: Mapping[str, Any]) -> dict[str, float]:
    """F1 by class or AU, or the two CCCs."""
    return result["f1"] if "f1" in result else {key: result[f"ccc_{key}"] for key in ("valence", "arousal")}
