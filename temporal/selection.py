"""What follows a training: predictions of held-out videos, what is chosen on them, scores, files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from temporal.data import FrameTable
from temporal.heads import Head
from temporal.predict import predict_spans
from temporal.recipes import Temporal
from temporal.scoring import Scored, score_sequences
from temporal.smoothing import RAW, Predicted, Smoothing, choose_smoothing, choose_thresholds, decode
from wildaffect.tasks import AUS, TASKS
from wildaffect.tasks.predictions import PredictionTrack, write_predictions
from wildaffect.training.rundir import RunDirectory

ByTask = dict[str, list[Predicted]]


@dataclass(frozen=True)
class Member:
    """One trained head of a run: its name (empty for the only one), raw predictions of held-out and reported videos."""

    name: str
    head: Head
    held: ByTask
    reported: ByTask


def predictions(head: Head, table: FrameTable, ids: Sequence[str], network: Any = None) -> ByTask:
    """Raw values with labels, task by task, for the given sequences.

    Args:
        head: which head.
        table: features and labels.
        ids: sequences of the table.
        network: another state of the head's network (a moving average); None for its own.
    """
    spans = [table.spans[i] for i in table.select(ids)]
    values = predict_spans(network or head.network, table.features, table.valid, spans, head)
    return {name: table.predicted(name, item.numpy(), ids) for name, item in values.items()}


def average_predictions(parts: Sequence[ByTask]) -> ByTask:
    """Plain mean of the values that several heads give for the same sequences."""
    return {
        name: [
            replace(same[0], values=np.mean([item.values for item in same], axis=0))
            for same in zip(*(part[name] for part in parts), strict=True)
        ]
        for name in parts[0]
    }


def choose(head: Head, config: Temporal, held: ByTask) -> None:
    """Choose smoothing and thresholds on held-out predictions and store them in the head."""
    for task in head.tasks:
        kind = config.smoothing
        if kind == "mode" and task.name != "expr":
            kind = "none"  # a mode is for classes
        if config.smoothing_width and kind != "none":
            smoothing = Smoothing(kind, config.smoothing_width, config.smoothing_unit)
        else:
            smoothing = choose_smoothing(task, held[task.name], kind, config.smoothing_unit)
        head.smoothing[task.name] = smoothing
        if task.name == "au" and config.thresholds == "chosen":
            head.thresholds = choose_thresholds(held["au"], smoothing)


def scored(head: Head, name: str, items: Sequence[Predicted], raw: bool = False) -> list[Scored]:
    """Decoded predictions of the annotated frames; `raw` without what `choose` chose."""
    smoothing = RAW if raw else head.smoothing.get(name, RAW)
    thresholds = head.thresholds if name == "au" and not raw else None
    result = []
    for item in items:
        seen = np.flatnonzero(item.mask.any(axis=1))
        if len(seen):
            decoded = decode(TASKS[name], item, smoothing, thresholds)
            values = smoothing.on_values(item.values, item.rate)
            result.append(Scored(item.id, seen + 1, decoded[seen], item.labels[seen], item.mask[seen], values[seen]))
    return result


def report(head: Head, items: ByTask) -> dict[str, Any]:
    """Scores by task, raw and with what was chosen; for several tasks also their sum (the MTL challenge's)."""
    result: dict[str, Any] = {}
    for task in head.tasks:
        chosen = scored(head, task.name, items[task.name])
        if chosen:
            raw = score_sequences(task, scored(head, task.name, items[task.name], raw=True))["score"]
            result[task.name] = {**score_sequences(task, chosen), "raw": raw}
            if task.name == "au" and head.thresholds is not None:
                result["au"]["thresholds"] = dict(zip(AUS, head.thresholds.tolist(), strict=True))
    if len(head.tasks) > 1:
        result["score"] = sum(result[task.name]["score"] for task in head.tasks if task.name in result)
    return result


def held_out(members: Sequence[Member]) -> ByTask:
    """Predictions of all held-out videos, each once: the seeds that left the same fold out are averaged."""
    same_fold: dict[tuple[str, ...], list[ByTask]] = {}
    for member in members:
        ids = tuple(item.id for items in member.held.values() for item in items)
        same_fold.setdefault(ids, []).append(member.held)
    by_fold = [average_predictions(parts) for parts in same_fold.values()]
    return {task.name: [item for part in by_fold for item in part[task.name]] for task in members[0].head.tasks}


def conclude(config: Temporal, members: Sequence[Member], synthetic: bool) -> dict[str, Any]:
    """Let the held-out videos choose, score everything, and record it in the heads.

    Folds choose together, on the out-of-fold predictions of all training videos; seeds choose by their average.

    Returns:
        `held_out` and `validation` (None without such videos): scores of the heads' plain average, by task; `members`:
        the single heads; `smoothing`; `synthetic`.
    """
    held = held_out(members)
    for member in members:
        choose(member.head, config, held)
    first = members[0].head
    has_validation = any(members[0].reported.values())
    summary: dict[str, Any] = {
        "held_out": report(first, held),
        "validation": report(first, average_predictions([m.reported for m in members])) if has_validation else None,
        "members": [{"name": m.name, **m.head.record, "validation": report(m.head, m.reported)} for m in members],
        "smoothing": {name: asdict(item) for name, item in first.smoothing.items()},
        "synthetic": synthetic,
    }
    for member, facts in zip(members, summary["members"], strict=True):
        member.head.record |= {
            "held_out": summary["held_out"],
            "validation": facts["validation"],
            "synthetic": synthetic,
        }
    return summary


def write_validation(
    config: Temporal, run: RunDirectory, table: FrameTable, members: Sequence[Member], summary: Mapping[str, Any]
) -> None:
    """Write `validation/<id>.parquet` (smoothed predictions of whole sequences) and `report.html`."""
    from temporal.plots import write_run_report

    head = members[0].head
    items = average_predictions([member.reported for member in members])
    ids = sorted({item.id for part in items.values() for item in part})
    for id, seen in table.faces(ids).items():
        same = {task: next(item for item in part if item.id == id) for task, part in items.items()}
        values = {task: head.smoothing.get(task, RAW).on_values(item.values, item.rate) for task, item in same.items()}
        frames = np.arange(1, len(seen) + 1)
        seconds = (frames - 1) / next(iter(same.values())).rate
        track = PredictionTrack(frames, seconds, seen, values)
        write_predictions(run.path / "validation" / f"{id}.parquet", {"": track})
    shown = items if ids else held_out(members)
    by_task = {task.name: scored(head, task.name, shown[task.name]) for task in head.tasks}
    write_run_report(run.path / "report.html", config, run.metrics(), summary, by_task)
