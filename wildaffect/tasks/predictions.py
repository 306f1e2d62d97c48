"""Prediction tables: one Parquet or CSV file per video, one row per subject and frame.

Columns: `subject` ('' for the only or main one), `frame` (from 1), `time_s`, `face` (whether one was seen), then those
of the tasks predicted: `valence`, `arousal`; `p_Neutral` ... `p_Other`; `p_AU1` ... `p_AU26`. Further columns are
allowed. The file is named for the video.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.artifact import atomic_file
from checkpoints.errors import UserError
from wildaffect.tasks.labels import read_columns
from wildaffect.tasks.task import TASKS, Task

FIXED = ("subject", "frame", "time_s", "face")


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
        carried: How many frames without a face have been given the values of the nearest frame with one.
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
    import pyarrow as pa
    from pyarrow import csv, parquet

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
        (parquet.write_table if path.suffix == ".parquet" else csv.write_csv)(table, temporary)


def read_predictions(path: Path) -> dict[str, PredictionTrack]:
    """Read the table of one video, a folder of them, or what `wildaffect predict` leaves: id -> predictions.

    A table is called as its video; `predictions.*` has the name of its folder. Of a table in both forms the Parquet is
    read. A frame without a face has the values of the subject's nearest frame with one.

    Raises:
        UserError: for no table, missing columns, a frame predicted twice, or a video with two tables.
    """
    path = Path(path)
    if not path.is_dir():
        return _read_table(path)
    tables = [p for p in (*path.iterdir(), *path.glob("*/predictions.*")) if p.suffix in (".parquet", ".csv")]
    tables = [p for p in tables if not p.name.startswith(".")]
    files = sorted({p.with_suffix(""): p for p in sorted(tables)}.values())  # `.parquet` after `.csv`
    if not files:
        raise UserError(f"{path} holds no prediction tables (.parquet or .csv)")
    found: dict[str, PredictionTrack] = {}
    for file in files:
        for id, track in _read_table(file).items():
            if id in found:
                raise UserError(f"{path} holds two tables of {id}, one of them {file}")
            found[id] = track
    return found


def _read_table(path: Path) -> dict[str, PredictionTrack]:
    if not path.is_file():
        raise UserError(f"{path} does not exist: expected a prediction table, a folder of them, or a challenge file")
    columns = read_columns(path)
    tasks = [task for task in TASKS.values() if set(value_columns(task)) <= set(columns)]
    if not tasks or "frame" not in columns:
        raise UserError(
            f"{path} is no prediction table: it needs 'frame' and the columns of a task "
            "(valence, arousal; p_Neutral, ...; p_AU1, ...)"
        )
    frames = np.array(columns["frame"], np.int64)
    subjects = np.array([subject or "" for subject in columns.get("subject", [""] * len(frames))], object)
    video = path.resolve().parent.name if path.stem == "predictions" else path.stem
    tracks = {}
    for subject in dict.fromkeys(subjects):
        rows = np.flatnonzero(subjects == subject)
        rows = rows[np.argsort(frames[rows], kind="stable")]
        twice = np.flatnonzero(np.diff(frames[rows]) == 0)
        if len(twice):
            who = f" of subject {subject!r}" if subject else ""
            raise UserError(f"{path}: frame {frames[rows][twice[0]]}{who} is predicted twice")
        face = _take(columns, "face", rows, True).astype(bool)
        values = {
            task.name: np.stack([_take(columns, name, rows, np.nan) for name in value_columns(task)], 1).astype("f4")
            for task in tasks
        }
        carried = 0
        for numbers in values.values():
            carried = max(carried, _carry(numbers, face, frames[rows]))
        tracks[video + (f"_{subject}" if subject else "")] = PredictionTrack(
            frames[rows],
            _take(columns, "time_s", rows, 0.0).astype(np.float64),
            face,
            values,
            carried,
        )
    return tracks


def _carry(values: np.ndarray, face: np.ndarray, frames: np.ndarray) -> int:
    """Fill the empty rows of frames without a face from the nearest frame that is not empty; how many were filled."""
    there = np.flatnonzero(np.isfinite(values).all(axis=1))
    empty = np.flatnonzero(np.isnan(values).all(axis=1) & ~face)
    if not len(there) or not len(empty):
        return 0
    after = np.searchsorted(there, empty).clip(max=len(there) - 1)
    before = (after - 1).clip(min=0)
    nearer = frames[empty] - frames[there[before]] <= np.abs(frames[there[after]] - frames[empty])
    values[empty] = values[there[np.where(nearer & (there[before] < empty), before, after)]]
    return len(empty)


def _take(columns: Mapping[str, list[Any]], name: str, rows: np.ndarray, missing: Any) -> np.ndarray:
    """Rows of a column, with `missing` where there is none or it is empty."""
    column = columns.get(name)
    return np.array([missing if column is None or column[row] is None else column[row] for row in rows])
