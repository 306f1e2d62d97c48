"""Official scores of predicted sequences, with confidence intervals and the score of chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wildaffect.tasks import TASKS, Task
from wildaffect.tasks.folds import base_video

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
        constant prediction; `ci_low` and `ci_high`, the 95 % percentile interval of a bootstrap over base videos.
    """
    by_video: dict[str, np.ndarray] = {}
    for item in items:
        statistics = task.statistics(item.decoded, item.labels, item.mask)
        video = base_video(item.id)
        by_video[video] = by_video[video] + statistics if video in by_video else statistics
    stacked = np.stack([by_video[video] for video in sorted(by_video)])
    count = len(stacked)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=BOOTSTRAP)
    scores = [task.score_statistics(sums)["score"] for sums in np.tensordot(draws, stacked, axes=1)]
    low, high = np.percentile(scores, [2.5, 97.5])
    labels, mask = (np.concatenate([getattr(item, field) for item in items]) for field in ("labels", "mask"))
    return {
        **task.score_statistics(stacked.sum(axis=0)),
        "chance": task.chance(labels, mask),
        "ci_low": float(low),
        "ci_high": float(high),
        "videos": count,
    }


def describe(results: Mapping[str, dict[str, Any]]) -> str:
    """Format the scores of several tasks as text."""
    lines = []
    for name, result in results.items():
        raw = f", {result['raw']:.4f} without smoothing and thresholds" if "raw" in result else ""
        lines.append(
            f"{name:5} {result['score']:.4f} [{result['ci_low']:.4f}, {result['ci_high']:.4f}] (95 % over "
            f"{result['videos']} videos, {result['frames']:,} frames){raw}; best constant {result['chance']:.4f}"
        )
        lines.append("      " + "  ".join(f"{key} {value:.3f}" for key, value in parts_of(result).items()))
    return "\n".join(lines)


def describe_run(summary: Mapping[str, Any]) -> str:
    """Format the scores of a training run as text: of the held-out videos and of the validation videos."""
    lines = []
    for part in ("held_out", "validation"):
        if summary[part]:
            tasks = {name: summary[part][name] for name in TASKS if name in summary[part]}
            lines.append(f"{part.replace('_', ' ')}:\n{describe(tasks)}")
    return "\n".join(lines)


def parts_of(result: Mapping[str, Any]) -> dict[str, float]:
    """F1 by class or AU, or the two CCCs."""
    return result["f1"] if "f1" in result else {key: result[f"ccc_{key}"] for key in ("valence", "arousal")}
