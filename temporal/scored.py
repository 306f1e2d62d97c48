"""Scores predictions in files: pairs them with labels, and leaves out the videos that must not be scored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.artifact import write_json
from checkpoints.errors import UserError
from temporal.heads import read_head_header
from temporal.plots import write_evaluation
from temporal.scoring import Scored, describe, score_sequences
from temporal.settings import Evaluate
from wildaffect.tasks import TASKS, Task
from wildaffect.tasks.challenge import parts, read_challenge_file
from wildaffect.tasks.labels import VALIDATION, is_synthetic, read_annotations, require_annotations
from wildaffect.tasks.leaks import scoreable
from wildaffect.tasks.predictions import read_predictions

Decoded = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Ascending frame numbers `[T]`, decoded labels `[T, W]`, and values `[T, C]` if they are known."""


def score_files(config: Evaluate) -> dict[str, Any]:
    """Score predictions, print the scores and write them.

    Returns:
        What the JSON file holds.

    Raises:
        UserError: an annotated frame has no prediction or two, or an input cannot be read.
    """
    scored = {
        name: load_scored(name, config.task, config.predictions, config.labels, config.heads)
        for name in parts(config.task)
    }
    scored = {name: leave_out_leaks(name, items, config) for name, items in scored.items()}
    results = {name: score_sequences(TASKS[name], items) for name, items in scored.items()}
    if config.task == "mtl":
        total: dict[str, Any] = {"score": sum(part["score"] for part in results.values()), **results}
    else:
        total = results[config.task]
    synthetic = is_synthetic(config.labels)
    result = {"task": config.task, "synthetic": synthetic, **total}
    print(describe(results) + ("\nsynthetic data (SynthWild): says nothing about real faces" if synthetic else ""))
    if config.json is not None:
        write_json(config.json, result)
    if config.report is not None:
        write_evaluation(config.report, results, scored, synthetic)
        print(f"report in {config.report}")
    return result


def load_scored(name: str, form: str, predictions: Path, labels: Path, heads: Sequence[Path] = ()) -> list[Scored]:
    """Pair the labels of one task with the predictions for their frames.

    Args:
        name: the task.
        form: form of a challenge file: a task, or `mtl`.
        predictions: a challenge file, a prediction table or a folder of tables.
        labels: see `wildaffect.tasks.labels.read_annotations`; of a release, the validation split is scored.
        heads: heads that made the predictions, for the AU thresholds.

    Raises:
        UserError: an annotated frame has no prediction, or no frame is annotated.
    """
    task = TASKS[name]
    tracks = read_annotations(labels, task) or require_annotations(labels, task, VALIDATION)
    if predictions.suffix == ".txt":
        predicted = read_challenge_predictions(task, form, predictions)
    else:
        predicted = read_table_predictions(task, predictions, head_thresholds(heads) if name == "au" else None)
    items = []
    for id, track in tracks.items():
        annotated = np.flatnonzero(track.mask.any(axis=1))
        if not len(annotated):
            continue
        frames, decoded, values = predicted.get(id, (np.zeros(0, np.int64), None, None))
        missing = np.setdiff1d(annotated + 1, frames, assume_unique=True)
        if len(missing) or decoded is None:
            raise UserError(
                f"{predictions} has no {name} prediction for frame {missing[0]} of {id}, which {track.path} "
                f"annotates ({len(missing):,} such frames in this sequence)"
            )
        rows = np.searchsorted(frames, annotated + 1)
        chosen = None if values is None else values[rows]
        items.append(Scored(id, annotated + 1, decoded[rows], track.labels[annotated], track.mask[annotated], chosen))
    if not items:
        raise UserError(f"{labels} has no annotated {name} frame: nothing to score")
    return items


def read_challenge_predictions(task: Task, form: str, path: Path) -> dict[str, Decoded]:
    """Predictions of one task in a challenge file, by id. Only for VA does the file hold values."""
    content = read_challenge_file(path, form)
    result: dict[str, Decoded] = {}
    for id, rows in content.index.rows.items():
        order = np.argsort(content.index.frames[id])
        decoded = content.values[task.name][rows[order]]
        result[id] = (content.index.frames[id][order], decoded, decoded if task.name == "va" else None)
    return result


def read_table_predictions(task: Task, path: Path, thresholds: np.ndarray | None) -> dict[str, Decoded]:
    """Predictions of one task in tables of ours, by id, decoded with AU `thresholds` (None: 0.5).

    Raises:
        UserError: a table has no columns for the task.
    """
    result: dict[str, Decoded] = {}
    carried = 0
    for id, track in read_predictions(path).items():
        carried += track.carried
        if task.name not in track.values:
            raise UserError(f"the predictions of {id} in {path} have no {task.name} columns")
        finite = np.isfinite(track.values[task.name]).all(axis=1)
        values = track.values[task.name][finite]
        result[id] = (track.frames[finite], task.decode(values, thresholds), values)
    if carried:
        print(f"{carried:,} frames without a face have the {task.name} values of the nearest frame with one")
    return result


def head_thresholds(heads: Sequence[Path]) -> np.ndarray | None:
    """Mean AU thresholds of the heads; None if they have none."""
    chosen = [header["thresholds"] for path in heads for header in read_head_header(path) if header["thresholds"]]
    return np.mean(chosen, axis=0) if chosen else None


def leave_out_leaks(name: str, items: list[Scored], config: Evaluate) -> list[Scored]:
    """Leave out, with a warning, the videos that the heads or their encoders learned from; see `scoreable`.

    Without heads nothing is known, and everything is kept.
    """
    headers = [header for path in config.heads for header in read_head_header(path)]
    if not headers:
        return items
    seen: dict[str, set[str]] = {}
    for header in headers:
        for task, ids in header["encoder_trained_on"].items():
            seen.setdefault(task, set()).update(ids)
    kept = set(
        scoreable(
            [item.id for item in items],
            tasks={name},
            encoder=seen,
            head={id for header in headers for id in header["trained_on"]},
            allow_leak=config.allow_leak,
            rule_clean=config.rule_clean,
        )
    )
    return [item for item in items if item.id in kept]
