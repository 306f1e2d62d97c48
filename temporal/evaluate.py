"""Official scores: `python temporal/evaluate.py --task va --predictions FILE --labels DIR [--json F] [--report F]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from checkpoints.errors import UserError, guarded

if TYPE_CHECKING:
    from temporal.scoring import Scored
    from wildaffect.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score predictions over all annotated frames together, each once."""

    task: Literal["va", "expr", "au", "mtl"]
    """What is scored; mtl: the sum of all three."""
    predictions: Path
    """A challenge file (.txt, anybody's), a prediction table (.parquet, .csv), a folder of them, or what `wildaffect
    predict` has written. Frames without a face are scored with the values of the nearest frame that has one."""
    labels: Path
    """Folder of official label files (<id>.txt), a release (its validation set is scored), an MTL file or a table."""
    heads: tuple[Path, ...] = ()
    """Heads that made the predictions: gives AU thresholds, and the videos that they or their encoders learnt from."""
    json: Path | None = None
    """Write the scores here."""
    report: Path | None = None
    """Write tables and plots here, as one HTML page."""
    allow_leak: bool = False
    """Also score videos whose labels the encoder or the head was trained on."""
    rule_clean: bool = False
    """Refuse such videos, and encoders trained on another task's labels, instead of leaving the videos out."""


def main(config: Evaluate) -> dict[str, Any]:
    """Score, print and write; returns what the JSON holds.

    Raises:
        UserError: naming a labelled frame without a prediction or one predicted twice, and for unreadable inputs.
    """
    from checkpoints.artifact import write_json
    from temporal.scoring import describe, score_sequences
    from wildaffect.tasks import TASKS
    from wildaffect.tasks.challenge import parts
    from wildaffect.tasks.labels import is_synthetic

    names = parts(config.task)
    scored = {name: load_scored(config, name) for name in names}
    scored = {name: leave_out_leaks(config, name, items) for name, items in scored.items()}
    results = {name: score_sequences(TASKS[name], items) for name, items in scored.items()}
    if config.task == "mtl":
        result: dict[str, Any] = {"score": sum(part["score"] for part in results.values()), **results}
    else:
        result = results[config.task]
    synthetic = is_synthetic(config.labels)
    result = {"task": config.task, "synthetic": synthetic, **result}
    print(describe(results) + ("\nsynthetic data (SynthWild): says nothing about real faces" if synthetic else ""))
    if config.json is not None:
        write_json(config.json, result)
    if config.report is not None:
        from temporal.plots import write_evaluation

        write_evaluation(config.report, results, scored, synthetic)
        print(f"report in {config.report}")
    return result


def load_scored(config: Evaluate, name: str) -> list[Scored]:
    """Pair the labels of one task with the predictions for their frames."""
    import numpy as np

    from temporal.scoring import Scored
    from wildaffect.tasks import TASKS
    from wildaffect.tasks.labels import VALIDATION, read_annotations, require_annotations

    task = TASKS[name]
    tracks = read_annotations(config.labels, task) or require_annotations(config.labels, task, VALIDATION)
    predicted = read_predicted(config, task)
    items = []
    for id, track in tracks.items():
        annotated = np.flatnonzero(track.mask.any(axis=1))
        if not len(annotated):
            continue
        frames, decoded, values = predicted.get(id, (np.zeros(0, np.int64), None, None))
        missing = np.setdiff1d(annotated + 1, frames, assume_unique=True)
        if len(missing) or decoded is None:
            raise UserError(
                f"{config.predictions} has no {name} prediction for frame {missing[0]} of {id}, which {track.path} "
                f"annotates ({len(missing):,} such frames of this sequence)"
            )
        rows = np.searchsorted(frames, annotated + 1)
        chosen = None if values is None else values[rows]
        items.append(Scored(id, annotated + 1, decoded[rows], track.labels[annotated], track.mask[annotated], chosen))
    if not items:
        raise UserError(f"{config.labels} has no annotated {name} frame: nothing to score")
    return items


def read_predicted(config: Evaluate, task: Task) -> dict[str, tuple[Any, Any, Any]]:
    """Id -> (ascending frames, decoded labels, values or None)."""
    import numpy as np

    if config.predictions.suffix == ".txt":
        from wildaffect.tasks.challenge import read_challenge_file

        content = read_challenge_file(config.predictions, config.task)
        result = {}
        for id, rows in content.index.rows.items():
            order = np.argsort(content.index.frames[id])
            values = content.values[task.name][rows[order]]
            result[id] = (content.index.frames[id][order], values, values if task.name == "va" else None)
        return result
    from wildaffect.tasks.predictions import read_predictions

    thresholds = head_thresholds(config.heads) if task.name == "au" else None
    result, carried = {}, 0
    for id, track in read_predictions(config.predictions).items():
        carried += track.carried
        if task.name not in track.values:
            raise UserError(f"the predictions of {id} in {config.predictions} have no {task.name} columns")
        finite = np.isfinite(track.values[task.name]).all(axis=1)
        values = track.values[task.name][finite]
        result[id] = (track.frames[finite], task.decode(values, thresholds), values)
    if carried:
        print(f"{carried:,} frames without a face have the {task.name} values of the nearest frame with one")
    return result


def head_thresholds(heads: Sequence[Path]) -> Any:
    """Mean AU thresholds of the heads, or None."""
    import numpy as np

    from temporal.heads import read_head_header

    chosen = [header["thresholds"] for path in heads for header in read_head_header(path) if header["thresholds"]]
    return np.mean(chosen, axis=0) if chosen else None


def leave_out_leaks(config: Evaluate, name: str, items: list[Scored]) -> list[Scored]:
    """Warn of videos the heads or their encoders learnt from, and leave them out (see `wildaffect.tasks.leaks`)."""
    if not config.heads:
        return items
    from temporal.heads import read_head_header
    from wildaffect.tasks.leaks import scoreable

    headers = [header for path in config.heads for header in read_head_header(path)]
    seen: dict[str, set[str]] = {}
    for header in headers:
        for task, ids in header["encoder_trained_on"].items():
            seen.setdefault(task, set()).update(ids)
    own = {id for header in headers for id in header["trained_on"]}
    kept = set(
        scoreable(
            [item.id for item in items],
            tasks={name},
            encoder=seen,
            head=own,
            allow_leak=config.allow_leak,
            rule_clean=config.rule_clean,
        )
    )
    return [item for item in items if item.id in kept]


def command_line() -> None:
    """Parse the command line and score."""
    import tyro

    main(tyro.cli(Evaluate, description=__doc__))


if __name__ == "__main__":
    guarded(command_line)
