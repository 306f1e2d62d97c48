"""Prediction tables: one Parquet or CSV file per video, one row per subject and frame.

Columns: `subject` ('' for the only or main one), `frame` (from 1), `time_s`, `face` (whether one was seen), then those
of the tasks predicted: `valence`, `arousal`; `p_Neutral` ... `p_Other`; `p_AU1` ... `p_AU26`. Further columns are
allowed. The file is named for the video. `wildaffect predict` writes one folder per video, with a header.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from checkpoints.artifact import atomic_file, check_seal, read_json
from checkpoints.content import refuse_changed
from checkpoints.errors import UserError
from checkpoints.forms import Name, checked
from checkpoints.reading import shown, visible
from wildaffect.tasks.tables import Table, read_table
from wildaffect.tasks.task import TASKS, Task

FIXED = ("subject", "frame", "time_s", "face")
ROUNDING = 1e-6
HEADER = "predictions.json"
KIND = "clip predictions"
WORK = ".work"
"""What is kept in the folder of a clip until it is finished."""


class Tables(TypedDict):
    """What is read here of the header of a clip's folder: hashes of its files."""

    files: dict[Name, str]


def value_columns(task: Task) -> tuple[str, ...]:
    """Names of a task's columns: its values in [-1, 1], or its probabilities."""
    return task.columns if task.name == "va" else tuple(f"p_{name}" for name in task.columns)


@dataclass(frozen=True)
class PredictionTrack:
    """Predictions for one subject of one video.

    Attributes:
        frames: `[T]` frame numbers, ascending.
        time_s: `[T]` seconds.
        face: `[T]` bool, whether a face was seen.
        values: task name -> `[T, out_dim]` float32; NaN where nothing is predicted.
        carried: Number of frames without a face that were given the values of the nearest frame with one.
    """

    frames: np.ndarray
    time_s: np.ndarray
    face: np.ndarray
    values: dict[str, np.ndarray]
    carried: int = 0


def write_predictions(path: Path, subjects: Mapping[str, PredictionTrack]) -> None:
    """Write the table of one video, atomically.

    Args:
        path: `<video>.parquet` or `<video>.csv`.
        subjects: subject -> predictions; all for the same tasks.

    Raises:
        UserError: for another kind of file, or none to write.
    """
    path = Path(path)
    if path.suffix not in (".parquet", ".csv") or not subjects:
        raise UserError(f"{path}: predictions are written to a .parquet or .csv file, for at least one subject")
    columns: dict[str, list[Any]] = {name: [] for name in FIXED}
    for subject, track in subjects.items():
        columns["subject"].append(np.full(len(track.frames), subject, object))
        columns["frame"].append(np.asarray(track.frames, np.int32))
        columns["time_s"].append(np.asarray(track.time_s, np.float64))
        columns["face"].append(np.asarray(track.face, bool))
        for name, values in track.values.items():
            for column, numbers in zip(value_columns(TASKS[name]), np.asarray(values, np.float32).T, strict=True):
                columns.setdefault(column, []).append(numbers)
    table = pa.table({name: np.concatenate(parts) for name, parts in columns.items()})
    with atomic_file(path) as temporary:
        if path.suffix == ".parquet":
            parquet.write_table(table, temporary, write_page_checksum=True)
        else:
            csv.write_csv(table, temporary)


def read_predictions(path: Path) -> dict[str, PredictionTrack]:
    """Read the table of one video, a folder of them, or what `wildaffect predict` leaves: id -> predictions.

    A table is named for its video; `predictions.*` belongs to the video its folder is named for. If a table exists in
    both forms, the Parquet file is read. A frame without a face gets the values of the nearest frame with one.

    Raises:
        UserError: There is no table, a column is missing or malformed, a frame is predicted twice, a video has two
            tables, or a folder of `wildaffect predict` is unfinished or not as its header says.
    """
    path = Path(path)
    folders = {path if path.is_dir() else path.parent, *(path.glob("*/") if path.is_dir() else ())}
    for folder in sorted(folders):
        _refuse_changed(folder)
    if not path.is_dir():
        if not path.is_file():
            raise UserError(
                f"{path} does not exist: expected a prediction table, a folder of them, or a challenge file"
            )
        return _read_table(path)
    files = visible((*path.iterdir(), *path.glob("*/predictions.*")))
    parquets = {file.with_suffix("") for file in files if file.suffix == ".parquet"}
    tables = [f for f in files if f.suffix == ".parquet" or (f.suffix == ".csv" and f.with_suffix("") not in parquets)]
    if not tables:
        raise UserError(f"{path} holds no prediction tables (.parquet or .csv)")
    found: dict[str, PredictionTrack] = {}
    for file in tables:
        for id, track in _read_table(file).items():
            if id in found:
                raise UserError(f"{path} holds two tables of {id}, one of them {file}")
            found[id] = track
    return found


def _refuse_changed(folder: Path) -> None:
    """Compare the tables of a clip's folder with its header; other folders have none."""
    header = folder / HEADER
    if not header.is_file():
        if (folder / WORK).is_dir():
            raise UserError(f"{folder} is not finished: run `wildaffect predict` again")
        return
    content = read_json(header)
    if isinstance(content, dict) and content.get("kind") == KIND:
        files = checked(content, Tables, header)["files"]
        check_seal(content, header)
        tables = {name: hash for name, hash in files.items() if name.startswith("predictions.")}
        refuse_changed(folder, tables, HEADER)


def _read_table(path: Path) -> dict[str, PredictionTrack]:
    table = read_table(path)
    tasks = [task for task in TASKS.values() if all(name in table for name in value_columns(task))]
    if not tasks or "frame" not in table:
        raise UserError(
            f"{path} is not a prediction table: it needs 'frame' and the columns of a task "
            "(valence, arousal; p_Neutral, ...; p_AU1, ...)"
        )
    frames = table.frames()
    subjects = np.array(table.subjects(), object)
    faces = table.truths("face") if "face" in table else np.ones(len(table), bool)
    times = np.nan_to_num(table.numbers("time_s")) if "time_s" in table else np.zeros(len(table))
    values = {task.name: np.stack([_values(table, name, task) for name in value_columns(task)], 1) for task in tasks}
    video = path.resolve().parent.name if path.stem == "predictions" else path.stem
    tracks = {}
    for subject in dict.fromkeys(subjects):
        rows = np.flatnonzero(subjects == subject)
        rows = rows[np.argsort(frames[rows], kind="stable")]
        twice = np.flatnonzero(np.diff(frames[rows]) == 0)
        if len(twice):
            who = f" of subject {shown(subject)}" if subject else ""
            row = int(rows[twice[0] + 1])
            raise table.error(row, "frame", f"frame {frames[row]}{who} is predicted twice")
        mine = {name: numbers[rows].astype(np.float32) for name, numbers in values.items()}
        carried = max(_carry(numbers, faces[rows], frames[rows]) for numbers in mine.values())
        name = f"{video}_{subject}" if subject else video
        tracks[name] = PredictionTrack(frames[rows], times[rows], faces[rows], mine, carried)
    return tracks


def _values(table: Table, name: str, task: Task) -> np.ndarray:
    """A column of valences, arousals or probabilities `[N]`; NaN where nothing is predicted.

    Raises:
        UserError: One is out of range by more than float32 rounds.
    """
    values = table.numbers(name)
    least = -1 if task.name == "va" else 0
    bad = np.flatnonzero((values < least - ROUNDING) | (values > 1 + ROUNDING))
    if len(bad):
        raise table.error(int(bad[0]), name, f"{values[bad[0]]:.10g} is out of range: expected {least} to 1")
    return values.clip(least, 1)


def _carry(values: np.ndarray, face: np.ndarray, frames: np.ndarray) -> int:
    """Fill the empty rows of frames without a face from the nearest frame that is not empty; returns how many."""
    filled = np.flatnonzero(np.isfinite(values).all(axis=1))
    empty = np.flatnonzero(np.isnan(values).all(axis=1) & ~face)
    if not len(filled) or not len(empty):
        return 0
    after = np.searchsorted(filled, empty)
    right = filled[np.minimum(after, len(filled) - 1)]
    left = filled[np.maximum(after - 1, 0)]
    left_is_nearer = np.abs(frames[empty] - frames[left]) <= np.abs(frames[right] - frames[empty])
    values[empty] = values[np.where(left_is_nearer, left, right)]
    return len(empty)
