"""Scores predictions in files: pairs them with labels, and leaves out the videos that must not be scored."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.artifact import write_json
from checkpoints.errors import UserError
from temporal.data import frame_rate
from temporal.heads import HeadHeader, head_directories, read_head_header
from temporal.plots import write_evaluation
from temporal.scoring import Scored, describe, p_mtl, score_sequences
from temporal.settings import Evaluate
from temporal.smoothing import RAW, Smoothing
from wildaffect.tasks import TASKS, Task
from wildaffect.tasks.challenge import is_challenge_file, parts, read_challenge_file
from wildaffect.tasks.class_map import ClassMap
from wildaffect.tasks.label_track import Spans, Tracks
from wildaffect.tasks.labels import find_mtl_file, is_synthetic, read_annotations, require_annotations
from wildaffect.tasks.leaks import scoreable, together
from wildaffect.tasks.predictions import read_predictions, value_columns
from wildaffect.tasks.split_words import TEST, TRAIN, VALIDATION

Decoded = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Ascending frame numbers `[T]`, decoded labels `[T, W]`, and values `[T, C]` if they are known."""
UNKNOWN = "Without --heads nobody knows which of these videos taught or chose what made the predictions."


def score_files(config: Evaluate) -> dict[str, Any]:
    """Score predictions, print the scores and write them.

    Returns:
        What the JSON file holds.

    Raises:
        UserError: an annotated frame has no prediction or two, an input cannot be read, or no video may be scored.
    """
    headers = [read_head_header(directory) for path in config.heads for directory in head_directories(path)]
    notes = [] if headers else [UNKNOWN]
    if not headers and (config.rule_clean or config.allow_leak):
        raise UserError("--rule-clean and --allow-leak need --heads: predictions do not say what taught and chose them")
    scored = {
        name: load_scored(name, config.task, config.predictions, config.labels, headers, config.split, config.class_map)
        for name in parts(config.task)
    }
    if headers:
        scored = {name: leave_out_leaks(items, headers, config) for name, items in scored.items()}
    results = {name: score_sequences(TASKS[name], items) for name, items in scored.items()}
    total = {"score": p_mtl(results), **results} if config.task == "mtl" else results[config.task]
    synthetic = is_synthetic(config.labels)
    result: dict[str, Any] = {"task": config.task, "synthetic": synthetic, "notes": notes, **total}
    said = [*notes, *(["synthetic data (SynthWild): says nothing about real faces"] if synthetic else [])]
    print("\n".join([describe(results), *said]))
    if config.json is not None:
        write_json(config.json, result)
    if config.report is not None:
        write_evaluation(config.report, results, scored, notes, synthetic)
        print(f"report in {config.report}")
    return result


def load_scored(
    name: str,
    form: str,
    predictions: Path,
    labels: Path,
    headers: Sequence[HeadHeader] = (),
    split: str = "validation",
    class_map: Path | None = None,
) -> list[Scored]:
    """Pair the labels of one task with the predictions for their frames.

    Args:
        name: the task.
        form: form of a challenge file: a task, or `mtl`.
        predictions: a challenge file, a prediction table or a folder of tables.
        labels: see :func:`labels_to_score`.
        headers: of the heads that made the predictions, for the AU thresholds and the mode filter.
        split: `validation` or `test`.
        class_map: what class names and numbers mean, as JSON.

    Raises:
        UserError: an annotated frame has no prediction, or no frame is annotated.
    """
    task = TASKS[name]
    if predictions.is_file() and (predictions.suffix.lower() == ".txt" or is_challenge_file(predictions)):
        predicted = read_challenge_predictions(task, form, predictions)
    else:
        predicted = read_table_predictions(task, predictions, headers)
    spans = {id: (int(frames[0]), int(frames[-1])) for id, (frames, *_) in predicted.items() if len(frames)}
    names = ClassMap(class_map)
    tracks = labels_to_score(labels, task, form, split, class_map=names, spans=spans)
    for line in names.lines():
        print(line)
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


def read_table_predictions(task: Task, path: Path, headers: Sequence[HeadHeader] = ()) -> dict[str, Decoded]:
    """Predictions of one task in tables of ours, by id, decoded as the heads with these headers do it.

    Raises:
        UserError: a table has no columns for the task.
    """
    thresholds, filtered = decoding_of(headers, task)
    result: dict[str, Decoded] = {}
    carried = 0
    for id, track in read_predictions(path).items():
        carried += track.carried
        if task.name not in track.values:
            reason = "; heads that withhold action units cannot be scored" if task.name == "au" else ""
            raise UserError(
                f"the predictions of {id} in {path} lack columns of {task.name}: all of {value_columns(task)[0]} to "
                f"{value_columns(task)[-1]} are needed{reason}"
            )
        finite = np.isfinite(track.values[task.name]).all(axis=1)
        values = track.values[task.name][finite]
        decoded = filtered.on_decoded(task.decode(values, thresholds), frame_rate(track.time_s))
        result[id] = (track.frames[finite], decoded, values)
    if carried:
        print(f"{carried:,} frames without a face have the {task.name} values of the nearest frame with one")
    return result


def decoding_of(headers: Sequence[HeadHeader], task: Task) -> tuple[np.ndarray | None, Smoothing]:
    """Mean AU thresholds of the heads of a task (None: 0.5) and the first one's smoothing, as in prediction."""
    able = [h for h in headers if h["task"] in (task.name, "joint") and h.get("shares", {}).get(task.name, 1)]
    chosen = [header["thresholds"] for header in able if header["thresholds"] and task.name == "au"]
    smoothing = next((Smoothing(**h["smoothing"][task.name]) for h in able if task.name in h["smoothing"]), RAW)
    return np.mean(chosen, axis=0) if chosen else None, smoothing


def labels_to_score(
    labels: Path, task: Task, form: str, split: str, *, class_map: ClassMap, spans: Spans | None
) -> Tracks:
    """The labels of one split, or all of them where they have no splits; never rows of several splits together.

    Args:
        labels: see `wildaffect.tasks.labels.read_annotations`.
        task: whose labels.
        form: `mtl` takes a release's MTL set.
        split: `validation` or `test`.
        class_map: what class names and numbers mean.
        spans: first and last frame of each sequence, for labels without frame numbers.

    Raises:
        UserError: there are none.
    """
    read = partial(read_annotations, class_map=class_map, spans=spans)
    wanted = VALIDATION if split == "validation" else TEST
    sets = {part: find_mtl_file(labels, part) for part in (TRAIN, VALIDATION)} if labels.is_dir() else {}
    if form == "mtl" and (listed := sets.get(wanted)):
        return read(listed, task)
    one_task = form == "mtl" and labels.is_dir()  # the tasks' own validation sets are of other videos each
    if not one_task and (found := read(labels, task, wanted)):
        return found
    # What has no splits says the same when asked for its training split, or has none.
    whole, train = ({} if any(sets.values()) else read(labels, task, part) for part in (None, TRAIN))
    if train and not same_frames(train, whole):
        raise UserError(f"{labels} has splits, but no {form} labels of a {split} split: choose another --split")
    if not whole and one_task:
        raise UserError(
            f"{labels} holds no {split} set of the MTL challenge (such as MTL_Challenge/validation_set.txt)"
        )
    return whole or require_annotations(labels, task, wanted)


def same_frames(some: Tracks, every: Tracks) -> bool:
    """Whether two readings annotate as many frames of the same sequences."""
    frames = [{id: int(track.mask.any(axis=1).sum()) for id, track in tracks.items()} for tracks in (some, every)]
    return frames[0] == frames[1]


def leave_out_leaks(items: list[Scored], headers: Sequence[HeadHeader], config: Evaluate) -> list[Scored]:
    """Leave out, with a warning, the videos that taught or chose the heads or their encoders; see `scoreable`.

    Raises:
        UserError: no video is left.
    """
    if any("encoder_chosen_on" not in header for header in headers):
        text = "the heads do not say whose labels chose their encoder (an older version made them): train them again"
        if config.rule_clean:
            raise UserError(f"--rule-clean: {text}")
        print(f"warning: {text}", file=sys.stderr)
    encoder = [part for h in headers for part in (h["encoder_trained_on"], h.get("encoder_chosen_on", {}))]
    kept = set(
        scoreable(
            [item.id for item in items],
            tasks=parts(config.task),
            encoder=together(*encoder),
            head={id for header in headers for id in header["trained_on"]},
            allow_leak=config.allow_leak,
            rule_clean=config.rule_clean,
        )
    )
    return [item for item in items if item.id in kept]
