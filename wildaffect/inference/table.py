"""The table of a clip: one row per frame and subject; every value is finite or explicitly missing.

The columns extend those of `wildaffect.tasks.predictions`, so that `temporal/evaluate.py` can read these tables too.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute, csv, parquet

from checkpoints.artifact import atomic_file
from preprocessing.faces import FacesStore
from wildaffect.tasks import AUS, EXPRESSIONS, TASKS, Task
from wildaffect.tasks.predictions import value_columns

BOX = ("x1", "y1", "x2", "y2")

COLUMNS: dict[str, str] = {
    "subject": "empty for the main person (longest in view, large faces counting more); 2, 3, ... for the others",
    "frame": "frame number from 1, in the order of decoding",
    "time_s": "presentation time of the frame in seconds",
    "face": "whether this subject's face is in the frame (detected or interpolated); if not, the rest is empty",
    "interpolated": "whether the face was interpolated between nearby detections instead of detected",
    "x1": "left edge of the face's box in pixels of the video",
    "y1": "top edge of the box",
    "x2": "right edge of the box",
    "y2": "bottom edge of the box",
    "score": "confidence of the face detector, 0 to 1; empty if interpolated",
    "valence": "how pleasant, -1 to 1",
    "arousal": "how activated, -1 to 1",
    **{f"p_{name}": f"probability of the expression {name}; the eight add up to 1" for name in EXPRESSIONS},
    "expression": "the most probable expression, after a mode filter if the head has one",
    **{f"p_{name}": f"probability that {name} is active" for name in AUS},
    **{name: f"1 if the probability of {name} reaches the head's threshold, else 0" for name in AUS},
}


def reported(columns: Iterable[str], withheld: Collection[str]) -> list[str]:
    """The columns without those of the AUs that the heads withhold: `AU2` and `p_AU2`."""
    return [name for name in columns if name.removeprefix("p_") not in withheld]


def make_table(
    store: FacesStore,
    video: str,
    values: Mapping[str, np.ndarray],
    decoded: Mapping[str, np.ndarray],
    withheld: Collection[str] = (),
) -> pa.Table:
    """Join the faces and the predictions of one video.

    Args:
        store: The faces. Each row of the store becomes a row of the table.
        video: The video.
        values: Task name to `[N, out_dim]` for the video's rows in the order of the store.
        decoded: Task name to `[N, label_width]`.
        withheld: AUs that get no columns.
    """
    people = [np.arange(s.start, s.start + s.length) for s in store.sequences() if s.video == video]
    rows = np.concatenate(people)
    face = store.valid[rows]
    found = _face_columns(store, rows)
    columns: dict[str, Any] = {
        "subject": pa.array(list(store.subject[rows]), pa.string()),
        "frame": pa.array(store.frame[rows]),
        "time_s": pa.array(np.round(store.time_s[rows], 6), mask=np.isnan(store.time_s[rows])),
        "face": pa.array(face),
        "interpolated": pa.array(found["interpolated"] & face),
    }
    for number, name in enumerate(BOX):
        columns[name] = _numbers(found["box"][:, number], face, 1)
    columns["score"] = _numbers(found["score"], face & ~found["interpolated"], 4)
    for task in TASKS.values():
        if task.name not in values:
            continue
        for number, name in enumerate(value_columns(task)):
            columns[name] = _numbers(values[task.name][:, number], face, 5)
        if task.name == "expr":
            classes = decoded["expr"][:, 0].astype(int)
            names = [EXPRESSIONS[number] if seen else None for number, seen in zip(classes, face, strict=True)]
            columns["expression"] = pa.array(names, pa.string())
        if task.name == "au":
            for number, name in enumerate(AUS):
                columns[name] = pa.array(decoded["au"][:, number].astype(np.int8), mask=~face)
    return pa.table({name: columns[name] for name in reported(columns, withheld)})


def write_table(table: pa.Table, path: Path) -> None:
    """Write `.csv` or `.parquet` atomically. Missing values are empty cells or nulls."""
    with atomic_file(path) as temporary:
        if path.suffix == ".csv":
            with temporary.open("wb") as file:
                file.write((",".join(table.column_names) + "\n").encode())  # Arrow would quote the names
                csv.write_csv(table, file, csv.WriteOptions(include_header=False, quoting_style="needed"))
        else:
            parquet.write_table(table, temporary)


def read_table(path: Path) -> pa.Table:
    """Read a table from Parquet."""
    return parquet.read_table(path, partitioning=None)


def matrix(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Columns as float64 `[N, len(names)]`, with NaN for missing values."""
    return np.stack([table[name].cast("float64").to_numpy(zero_copy_only=False) for name in names], axis=1)


def present_tasks(table: pa.Table) -> list[Task]:
    """The tasks whose columns a table has."""
    return [task for task in TASKS.values() if not set(value_columns(task)).isdisjoint(table.column_names)]


def units_of(table: pa.Table) -> list[str]:
    """The action units whose columns a table has: a head may withhold some."""
    return [name for name in AUS if f"p_{name}" in table.column_names]


def subjects(table: pa.Table) -> list[str]:
    """Subjects in the order of the table, the main person first."""
    return table["subject"].unique().to_pylist()


def rows_of(table: pa.Table, subject: str) -> pa.Table:
    """The rows of one subject."""
    return table.filter(compute.equal(table["subject"], subject))


def times_of(rows: pa.Table) -> np.ndarray:
    """Seconds `[T]`; if the source has no clock, 30 frames per second are assumed."""
    time_s = rows["time_s"].to_numpy(zero_copy_only=False).astype(float)
    frames = rows["frame"].to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(time_s), time_s, (frames - 1) / 30)


def flags(rows: pa.Table, name: str) -> np.ndarray:
    """A column of truth values as bool `[T]`."""
    return rows[name].to_numpy(zero_copy_only=False).astype(bool)


def subject_name(subject: str) -> str:
    """The name of a subject in pictures and pages."""
    return f"person {subject or '1'}" if not subject or subject.isdigit() else subject


def _face_columns(store: FacesStore, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Box `[N, 4]`, score and interpolated flag of some rows; NaN if there is none."""
    names = ["box", "score", "interpolated"]
    table = pa.concat_tables(
        parquet.read_table(path, columns=names, partitioning=None).slice(first, count)
        for path, first, count in store.parts(int(rows[0]), int(rows[-1] - rows[0]) + 1)
    ).take(rows - rows[0])
    box = np.array([value or [np.nan] * 4 for value in table["box"].to_pylist()], np.float64).reshape(-1, 4)
    return {
        "box": box,
        "score": table["score"].cast("float64").to_numpy(zero_copy_only=False),
        "interpolated": table["interpolated"].to_numpy(zero_copy_only=False).astype(bool),
    }


def _numbers(values: np.ndarray, shown: np.ndarray, digits: int) -> pa.Array:
    """Rounded numbers, null where `shown` is false or the number is not finite."""
    values = np.asarray(values, np.float64)
    missing = ~shown | ~np.isfinite(values)
    return pa.array(np.where(missing, 0, values).round(digits), mask=missing)
