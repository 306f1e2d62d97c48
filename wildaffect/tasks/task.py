"""What valence-arousal, expression and action units *are*: one object per task.

The three differ in label width, mask marker, loss, decoding, metric and file format, and in nothing else. Training,
evaluation, submission and inference all use these objects, so each of these things is defined once.

Three forms of a prediction, in order:

* *outputs* `[..., out_dim]`: what a network gives (unbounded);
* *values* `[..., out_dim]`: `activate(outputs)` - valence and arousal in [-1, 1], or probabilities. Averaging,
  smoothing and ensembling happen here;
* *decoded* `[..., label_width]`: `decode(values)` - what stands in a label file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch

from wildaffect.tasks import losses, metrics

EXPRESSIONS = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other")
AUS = ("AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26")


class Task(ABC):
    """One of the challenge's tasks.

    Attributes:
        name: `va`, `expr` or `au`.
        title: for people.
        short: its name in the challenge's files.
        columns: names of the network's outputs, in the order of the label file's header.
        label_width: numbers per line of a label file.
        marker: the number that says "not annotated".
        folders: names of the task's folder in the release (they changed between editions).
        kinds: names of what :meth:`strata` counts.
        range: the values a label may have, for messages.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    short: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    label_width: ClassVar[int]
    marker: ClassVar[int]
    folders: ClassVar[tuple[str, ...]]
    kinds: ClassVar[tuple[str, ...]]
    range: ClassVar[str]

    @property
    def out_dim(self) -> int:
        """Width of a network's output."""
        return len(self.columns)

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Names of the numbers in a line of a label file."""
        return self.columns if self.label_width == self.out_dim else (self.title.lower(),)

    @property
    def header(self) -> str:
        """First line of an annotation file."""
        return ",".join(self.columns)

    def mask(self, labels: np.ndarray) -> np.ndarray:
        """True where a label is annotated, element by element (valence and arousal, and every AU, for themselves)."""
        return np.asarray(labels) != self.marker

    @abstractmethod
    def bad_values(self, labels: np.ndarray) -> np.ndarray:
        """`[T, W]` bool, true where a number can be neither a label nor the marker."""

    def bad_targets(self, labels: np.ndarray) -> np.ndarray:
        """The same for tables, which may say more than label files do (intensities of AUs)."""
        return self.bad_values(labels)

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """Labels `[T, label_width]` as a network is trained on them, `[T, out_dim]` float32; NaN: not annotated."""
        return np.where(self.mask(labels), labels, np.nan).astype(np.float32)

    @abstractmethod
    def loss(self, outputs: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, **choices: Any) -> torch.Tensor:
        """Mean training loss over the annotated elements.

        Args:
            outputs: `[..., out_dim]`.
            labels: `[..., label_width]`; Expr also takes distributions `[..., out_dim]`, AU intensities in 0..1.
            mask: `[..., label_width]` bool.
            **choices: the recipe's; see `wildaffect.tasks.losses`.
        """

    @abstractmethod
    def activate(self, outputs: torch.Tensor) -> torch.Tensor:
        """Values in [-1, 1] or probabilities, of the same shape."""

    @abstractmethod
    def decode(self, values: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """`[..., out_dim]` values -> `[..., label_width]` as in a label file."""

    @abstractmethod
    def statistics(self, decoded: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Additive statistics of frames: `[N, label_width]` each -> an array whose sum over videos scores the set."""

    @abstractmethod
    def score_statistics(self, statistics: np.ndarray) -> dict[str, Any]:
        """`score` and its parts, from summed statistics."""

    @abstractmethod
    def shown(self, statistics: np.ndarray) -> np.ndarray:
        """`[P]` bool, which parts of the score (CCCs, F1s) the labels behind summed statistics can tell."""

    @abstractmethod
    def chance(self, labels: np.ndarray, mask: np.ndarray) -> float:
        """Score of the best constant prediction."""

    @abstractmethod
    def strata(self, labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """`[S]` numbers of annotated frames of each kind, which folds are to hold alike."""

    def score(self, decoded: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
        """The official score over all given frames together (`[N, label_width]` each), with its parts."""
        return self.score_statistics(self.statistics(decoded, labels, mask))

    def format_row(self, decoded: np.ndarray) -> str:
        """One frame's decoded label as it stands in a file."""
        return ",".join(str(int(value)) for value in decoded)


class ValenceArousal(Task):
    """Valence and arousal in [-1, 1], scored by the mean of their CCCs; -5 marks either or both."""

    name = "va"
    title = "Valence and arousal"
    short = "VA"
    columns = ("valence", "arousal")
    label_width = 2
    marker = -5
    folders = ("VA_Estimation_Challenge",)
    kinds = ("-V -A", "+V -A", "-V +A", "+V +A")
    range = "-1 to 1, or -5 for not annotated"

    def bad_values(self, labels: np.ndarray) -> np.ndarray:
        """Outside [-1, 1] and not the marker."""
        return ~((np.abs(labels) <= 1) | (labels == self.marker))

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, **choices: Any) -> torch.Tensor:
        """See `wildaffect.tasks.losses.va_loss`."""
        return losses.va_loss(self.activate(outputs), labels, mask, **choices)

    def activate(self, outputs: torch.Tensor) -> torch.Tensor:
        """Tanh."""
        return outputs.tanh()

    def decode(self, values: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """Clip to [-1, 1]."""
        return np.clip(np.asarray(values, np.float64), -1, 1)

    def statistics(self, decoded: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """`[2, 6]` moments."""
        return np.stack([metrics.moments(decoded[mask[:, i], i], labels[mask[:, i], i]) for i in range(2)])

    def score_statistics(self, statistics: np.ndarray) -> dict[str, Any]:
        """`score`, `ccc_valence`, `ccc_arousal`, `frames`."""
        valence, arousal = (metrics.ccc_from_moments(sums) for sums in statistics)
        return {
            "score": (valence + arousal) / 2,
            "ccc_valence": valence,
            "ccc_arousal": arousal,
            "frames": int(statistics[:, 0].max()),
        }

    def shown(self, statistics: np.ndarray) -> np.ndarray:
        """Where the labels vary."""
        return np.array([metrics.target_varies(sums) for sums in statistics])

    def strata(self, labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Frames per quadrant of the plane."""
        quadrant = (labels[mask.all(-1)] > 0) @ np.array([1, 2])
        return np.bincount(quadrant, minlength=4)

    def chance(self, labels: np.ndarray, mask: np.ndarray) -> float:
        """0: the CCC of a constant."""
        return 0.0

    def format_row(self, decoded: np.ndarray) -> str:
        """Six decimals."""
        return ",".join(f"{value:.6f}" for value in decoded)


class Expression(Task):
    """One of eight expressions, scored by macro F1; -1 marks frames not annotated."""

    name = "expr"
    title = "Expression"
    short = "Expr"
    columns = EXPRESSIONS
    label_width = 1
    marker = -1
    folders = ("EXPR_Recognition_Challenge", "EXPR_Classification_Challenge", "Expression_Recognition_Challenge")
    kinds = EXPRESSIONS
    range = "0 to 7, or -1 for not annotated"

    def bad_values(self, labels: np.ndarray) -> np.ndarray:
        """Neither a class number nor the marker."""
        return ~np.isin(labels, np.arange(-1, len(EXPRESSIONS)))

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, **choices: Any) -> torch.Tensor:
        """See `wildaffect.tasks.losses.expression_loss`."""
        classes = labels[..., 0] if labels.shape[-1] == 1 else labels
        return losses.expression_loss(outputs, classes, mask[..., 0], **choices)

    def activate(self, outputs: torch.Tensor) -> torch.Tensor:
        """Softmax over the classes."""
        return outputs.softmax(-1)

    def decode(self, values: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """The likeliest class."""
        return np.argmax(values, axis=-1)[..., None]

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """Class numbers `[T, 1]` as distributions `[T, 8]` float32; zeros where a frame is not annotated."""
        classes = labels[:, 0].astype(int)
        return np.eye(len(EXPRESSIONS), dtype=np.float32)[classes] * self.mask(labels)

    def statistics(self, decoded: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """`[8, 8]` confusion matrix."""
        seen = mask[:, 0]
        return metrics.confusion(decoded[seen, 0], labels[seen, 0], len(EXPRESSIONS))

    def score_statistics(self, statistics: np.ndarray) -> dict[str, Any]:
        """`score`, `f1` by class, `frames`."""
        f1 = metrics.f1_from_confusion(statistics)
        return {
            "score": metrics.macro_f1(statistics),
            "f1": {name: float(value) for name, value in zip(EXPRESSIONS, f1, strict=True)},
            "frames": int(statistics.sum()),
        }

    def shown(self, statistics: np.ndarray) -> np.ndarray:
        """Classes that occur among the labels."""
        return statistics.sum(axis=1) > 0

    def strata(self, labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Frames per expression."""
        return np.bincount(labels[mask].astype(int), minlength=len(EXPRESSIONS))

    def chance(self, labels: np.ndarray, mask: np.ndarray) -> float:
        """Macro F1 of always answering the commonest class."""
        counts = np.bincount(labels[mask].astype(np.int64), minlength=len(EXPRESSIONS))
        if not counts.sum():
            return 0.0
        return float((2 * counts / (counts + counts.sum())).max() / len(EXPRESSIONS))


class ActionUnits(Task):
    """Twelve binary action units, scored by the mean of their F1; -1 marks each AU for itself."""

    name = "au"
    title = "Action units"
    short = "AU"
    columns = AUS
    label_width = 12
    marker = -1
    folders = ("AU_Detection_Challenge",)
    kinds = (*AUS, "any")
    range = "0 or 1, or -1 for not annotated"

    def bad_values(self, labels: np.ndarray) -> np.ndarray:
        """Neither 0, 1 nor the marker."""
        return ~np.isin(labels, (-1, 0, 1))

    def bad_targets(self, labels: np.ndarray) -> np.ndarray:
        """Neither an intensity from 0 to 1 nor the marker."""
        return ~(((labels >= 0) & (labels <= 1)) | (labels == self.marker))

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, **choices: Any) -> torch.Tensor:
        """See `wildaffect.tasks.losses.action_unit_loss`."""
        return losses.action_unit_loss(outputs, labels, mask, **choices)

    def activate(self, outputs: torch.Tensor) -> torch.Tensor:
        """Sigmoid of each AU."""
        return outputs.sigmoid()

    def decode(self, values: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """1 from the AU's threshold on (0.5 where none was chosen)."""
        return (np.asarray(values) >= (0.5 if thresholds is None else np.asarray(thresholds))).astype(np.int64)

    def statistics(self, decoded: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """`[12, 2, 2]` confusion matrices."""
        return metrics.binary_counts(decoded, labels, mask)

    def score_statistics(self, statistics: np.ndarray) -> dict[str, Any]:
        """`score`, `f1` by AU, `frames`."""
        f1 = metrics.f1_from_confusion(statistics)[:, 1]
        return {
            "score": float(f1.mean()),
            "f1": {name: float(value) for name, value in zip(AUS, f1, strict=True)},
            "frames": int(statistics.sum(axis=(1, 2)).max()),
        }

    def shown(self, statistics: np.ndarray) -> np.ndarray:
        """AUs that are present in some frame."""
        return statistics[:, 1].sum(axis=-1) > 0

    def strata(self, labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Frames in which each AU is active, and frames annotated."""
        return np.append(((labels > 0.5) & mask).sum(0), mask.any(-1).sum())

    def chance(self, labels: np.ndarray, mask: np.ndarray) -> float:
        """Mean over AUs of the F1 of always answering "present" (always "absent" has F1 0)."""
        annotated = mask.sum(axis=0)
        positive = ((labels > 0.5) & mask).sum(axis=0)
        return float(np.mean(2 * positive / np.maximum(annotated + positive, 1)))


VA, EXPR, AU = ValenceArousal(), Expression(), ActionUnits()
TASKS: dict[str, Task] = {task.name: task for task in (VA, EXPR, AU)}
