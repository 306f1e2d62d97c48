"""After training: choose smoothing and thresholds on the held-out videos, then score the heads."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from temporal.heads import Head
from temporal.predict import ByTask
from temporal.recipes import Temporal
from temporal.scoring import Scored, score_sequences
from temporal.smoothing import RAW, Predicted, Smoothing, choose_smoothing, choose_thresholds, decode
from wildaffect.tasks import AUS, TASKS


@dataclass(frozen=True)
class Member:
    """One trained head of a run.

    Attributes:
        name: its folder in the run; empty if it is the only head.
        head: the head.
        held_out: raw predictions of the held-out videos.
        reported: raw predictions of the videos that are only scored.
    """

    name: str
    head: Head
    held_out: ByTask
    reported: ByTask


def member_name(config: Temporal, fold: int, seed: int) -> str:
    """Folder of one of several heads; empty for a single head, which is saved in the run itself."""
    parts = [f"fold{fold}"] if config.folds else []
    return "-".join(parts + ([f"seed{config.seed + seed}"] if config.seeds > 1 else []))


def choose_and_score(config: Temporal, members: Sequence[Member], synthetic: bool, leaked: int) -> dict[str, Any]:
    """Choose smoothing and thresholds on the held-out videos, score everything, and record it in the heads.

    The choice is the same for all heads: with folds it is made on the out-of-fold predictions of all training videos,
    with seeds on the average of the heads.

    Returns:
        `held_out` and `validation`: scores of the heads' plain average by task, None without such videos; `members`:
        facts and scores of each head; `smoothing`; `synthetic`; `leaked`, the number of scored sequences that taught or
        chose the encoder.
    """
    held_out = held_out_predictions(members)
    for member in members:
        choose_decoding(member.head, config, held_out)
    first = members[0].head
    has_validation = any(members[0].reported.values())
    summary: dict[str, Any] = {
        "held_out": score_head(first, held_out),
        "validation": score_head(first, average_predictions([m.reported for m in members])) if has_validation else None,
        "members": [{"name": m.name, **m.head.record, "validation": score_head(m.head, m.reported)} for m in members],
        "smoothing": {name: asdict(item) for name, item in first.smoothing.items()},
        "synthetic": synthetic,
        "leaked": leaked,
    }
    for member, facts in zip(members, summary["members"], strict=True):
        member.head.record |= {
            "chosen_on": ids_of(held_out),
            "scored_on": ids_of(member.reported),
            "held_out": summary["held_out"],
            "validation": facts["validation"],
            "synthetic": synthetic,
            "labels_are": "synthetic" if synthetic else config.labels_are,
        }
    return summary


def ids_of(items: ByTask) -> list[str]:
    """Sorted ids of predicted sequences."""
    return sorted({item.id for part in items.values() for item in part})


def held_out_predictions(members: Sequence[Member]) -> ByTask:
    """Predictions of all held-out videos, each once. Heads that left out the same fold (several seeds) are averaged."""
    same_fold: dict[tuple[str, ...], list[ByTask]] = {}
    for member in members:
        ids = tuple(item.id for items in member.held_out.values() for item in items)
        same_fold.setdefault(ids, []).append(member.held_out)
    by_fold = [average_predictions(parts) for parts in same_fold.values()]
    return {task.name: [item for part in by_fold for item in part[task.name]] for task in members[0].head.tasks}


def average_predictions(parts: Sequence[ByTask]) -> ByTask:
    """Plain mean of the values that several heads predict for the same sequences."""
    return {
        name: [
            replace(same[0], values=np.mean([item.values for item in same], axis=0))
            for same in zip(*(part[name] for part in parts), strict=True)
        ]
        for name in parts[0]
    }


def choose_decoding(head: Head, config: Temporal, held_out: ByTask) -> None:
    """Choose smoothing and AU thresholds on held-out predictions and store them in the head."""
    for task in head.tasks:
        kind = config.smoothing
        if kind == "mode" and task.name != "expr":
            kind = "none"  # a mode needs classes
        if config.smoothing_width and kind != "none":
            smoothing = Smoothing(kind, config.smoothing_width, config.smoothing_unit)
        else:
            smoothing = choose_smoothing(task, held_out[task.name], kind, config.smoothing_unit)
        head.smoothing[task.name] = smoothing
        if task.name == "au" and config.thresholds == "chosen":
            head.thresholds = choose_thresholds(held_out["au"], smoothing)


def score_head(head: Head, items: ByTask) -> dict[str, Any]:
    """Scores by task, decoded as chosen and (`raw`) without it; for several tasks also their sum, as in MTL."""
    result: dict[str, Any] = {}
    for task in head.tasks:
        chosen = decode_annotated(head, task.name, items[task.name])
        if chosen:
            raw = score_sequences(task, decode_annotated(head, task.name, items[task.name], raw=True))["score"]
            result[task.name] = {**score_sequences(task, chosen), "raw": raw}
            if task.name == "au" and head.thresholds is not None:
                result["au"]["thresholds"] = dict(zip(AUS, head.thresholds.tolist(), strict=True))
    if len(head.tasks) > 1:
        result["score"] = sum(result[task.name]["score"] for task in head.tasks if task.name in result)
    return result


def decode_annotated(head: Head, name: str, items: Sequence[Predicted], raw: bool = False) -> list[Scored]:
    """Decode the annotated frames with the head's smoothing and thresholds; `raw`: with neither."""
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
