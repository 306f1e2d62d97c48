"""Reading annotations: the release's tree and files, a folder of label files, or one table.

A release annotation file has a header and one line per frame; line k after the header is frame k, and that is where a
sequence's length comes from. A table (CSV or Parquet) has the columns `video`, `subject` (optional), `frame`
(from 1), `split` (optional: `train` / `validation`) and any of `valence`, `arousal`, `expression` (0..7),
`AU1` ... `AU26`; frames it does not list are not annotated. The MTL challenge's file
(`image,valence,arousal,expression,aus`) is read likewise.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.errors import UserError
from wildaffect.tasks.task import AUS, TASKS, Task

TRAIN, VALIDATION = "Train_Set", "Validation_Set"
MTL_FOLDER = "MTL_Challenge"
MTL_HEADER = "image,valence,arousal,expression,aus"
MTL_COLUMNS = {"va": slice(0, 2), "expr": slice(2, 3), "au": slice(3, 15)}  # of the 15 numbers of a line
MTL_FILES = {TRAIN: "train_set.txt", VALIDATION: "validation_set.txt"}
LABEL_COLUMNS = {"va": ("valence", "arousal"), "expr": ("expression",), "au": AUS}


@dataclass(frozen=True)
class LabelTrack:
    """Annotations of one subject of one video.

    Attributes:
        labels: `[T, W]` float32 (whole numbers for Expr and AU), the task's marker where not annotated.
        mask: `[T, W]` bool, true where annotated.
        path: the file they came from.
        listed: the file lists single frames (MTL, tables): the video may go on beyond the last of them.
    """

    labels: np.ndarray
    mask: np.ndarray
    path: Path
    listed: bool = False

    def __len__(self) -> int:
        return len(self.labels)


Tracks = dict[str, LabelTrack]


def is_synthetic(source: Path | str) -> bool:
    """Whether a file or folder is part of a SynthWild corpus."""
    place = Path(source).resolve()
    return any((folder / "synthwild.json").is_file() for folder in (place, *place.parents[:4]))


def read_annotations(root: Path | str, task: Task, split: str | None = None) -> Tracks:
    """Annotations of one task and split, by id.

    Args:
        root: the release, its "... ABAW Annotations" folder, the task's folder, a folder of `<id>.txt`, or a file: a
            CSV/Parquet table or an MTL file.
        task: which labels.
        split: `Train_Set` or `Validation_Set`; None where the root has no splits.

    Returns:
        id -> track, sorted by id. Empty without such a task or split (`require_annotations` insists).

    Raises:
        UserError: for a missing root or a file with a fault, naming file and line.
    """
    root = Path(root)
    if root.is_file():
        return _read_file(root, task, split)
    folder = find_folder(root, task, split)
    if folder is None:
        mtl = find_mtl_file(root, split)
        return _read_file(mtl, task, None) if mtl else {}
    return {path.stem: read_annotation_file(path, task) for path in sorted(folder.glob("*.txt"))}


def all_annotations(root: Path | str) -> dict[str, dict[str, Tracks]]:
    """Task name -> split -> id -> track: everything a release annotates for training and validation.

    One task's folder stands for the release that it is part of.
    """
    root = Path(root)
    if root.name.lower() in FOLDERS:
        root = root.parent
    return {
        name: {split: read_annotations(root, task, split) for split in (TRAIN, VALIDATION)}
        for name, task in TASKS.items()
    }


def require_annotations(root: Path | str, task: Task, split: str | None = None) -> Tracks:
    """Like `read_annotations`, and refuses when there are none."""
    tracks = read_annotations(root, task, split)
    if not tracks:
        where = f" in a folder {split}" if split else ""
        raise UserError(
            f"{root} holds no {task.name} annotations{where}: expected the release root, its '6th ABAW Annotations' "
            f"folder, {task.folders[0]}, a folder of <id>.txt files, or a CSV/Parquet table"
        )
    return tracks


def find_folder(root: Path, task: Task, split: str | None) -> Path | None:
    """The folder of label files below `root`, or None."""
    if not root.is_dir():
        raise UserError(f"{root} does not exist: give the annotations' root, a folder of <id>.txt files, or a table")
    tops = [root, *sorted(child for child in root.iterdir() if child.is_dir() and "annotations" in child.name.lower())]
    for top in tops:
        for folder in (_child(top, name) for name in (*task.folders, task.name)):
            if folder is not None:
                return folder if split is None else _child(folder, split)
    whose = root.parent if root.name.lower() in (TRAIN.lower(), VALIDATION.lower()) else root
    if whose.name.lower() in FOLDERS - folders_of(task):  # another task's
        return None
    if split is None or root.name.lower() == split.lower():  # this very folder
        own: Path | None = root
    else:
        own = _child(root, split)
    return own if own is not None and any(own.glob("*.txt")) else None


def folders_of(task: Task) -> frozenset[str]:
    """Names of a task's folder, in lower case."""
    return frozenset(name.lower() for name in (*task.folders, task.name))


FOLDERS = frozenset[str]().union(*map(folders_of, TASKS.values()))


def find_mtl_file(root: Path, split: str | None) -> Path | None:
    """The MTL challenge's file of a split below `root`, or None."""
    if split is None:
        return None
    for top in (root, *sorted(child for child in root.iterdir() if child.is_dir())):
        for folder in (top, _child(top, MTL_FOLDER)):
            if folder is not None and (folder / MTL_FILES[split]).is_file():
                return folder / MTL_FILES[split]
    return None


def read_annotation_file(path: Path, task: Task) -> LabelTrack:
    """One `<id>.txt`.

    Raises:
        UserError: naming the line: a wrong header, a line that is not `label_width` numbers, an impossible value.
    """
    lines = read_lines(path)
    if not lines or lines[0].replace(" ", "") != task.header:
        raise UserError(
            f"{path}, line 1: expected the {task.name} header '{task.header}', found '{lines[0] if lines else ''}'"
        )
    labels = parse_numbers(lines[1:], task.label_width, path, first_line=2)
    return make_track(labels, task, path, lambda row: f"line {row + 2}")


def read_lines(path: Path) -> list[str]:
    """Lines of a text file without blank ones at its end.

    Raises:
        UserError: when it cannot be read as text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def parse_numbers(lines: list[str], width: int, path: Path, first_line: int) -> np.ndarray:
    """`[len(lines), width]` float32 from comma-separated lines; names the first that is not `width` numbers."""
    if not lines:
        return np.zeros((0, width), np.float32)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            numbers = np.loadtxt(lines, delimiter=",", dtype=np.float32, ndmin=2, comments=None)
        if numbers.shape == (len(lines), width):
            return numbers
    except (ValueError, UserWarning):
        pass
    rows = np.zeros((len(lines), width), np.float32)
    for number, line in enumerate(lines):  # slow, but only to find the fault
        fields = line.split(",")
        try:
            rows[number] = [float(field) for field in fields]
        except ValueError:
            raise UserError(
                f"{path}, line {first_line + number}: expected {width} comma-separated number(s), found '{line}'"
            ) from None
        if len(fields) != width:
            raise UserError(
                f"{path}, line {first_line + number}: expected {width} comma-separated number(s), found {len(fields)}"
            )
    return rows


def make_track(labels: np.ndarray, task: Task, path: Path, where: Callable[[int], str]) -> LabelTrack:
    """Check the values and mask the markers."""
    bad = task.bad_values(labels)
    if bad.any():
        row, column = (int(index[0]) for index in np.nonzero(bad))
        raise UserError(f"{path}, {where(row)}: {labels[row, column]:g} is no {task.name} label ({_range(task)})")
    return LabelTrack(labels, task.mask(labels), path)


def _range(task: Task) -> str:
    ranges = {"va": "-1 to 1, or -5 for not annotated", "expr": "0 to 7, or -1 for not annotated"}
    return ranges.get(task.name, "0 or 1, or -1 for not annotated")


def _child(folder: Path, name: str) -> Path | None:
    """The subfolder of that name, in whatever case (editions write `Train_Set` and `train_set`)."""
    return next(
        (child for child in sorted(folder.iterdir()) if child.is_dir() and child.name.lower() == name.lower()), None
    )


def _read_file(path: Path, task: Task, split: str | None) -> Tracks:
    if path.suffix == ".txt":
        return read_mtl(path, task)
    return read_table(path, task, split)


def read_mtl(path: Path, task: Task) -> Tracks:
    """One task's labels out of an MTL challenge file (16 columns under a header of five names)."""
    lines = read_lines(path)
    if not lines or lines[0].replace(" ", "") != MTL_HEADER:
        raise UserError(f"{path}, line 1: expected the MTL header '{MTL_HEADER}', found '{lines[0] if lines else ''}'")
    names = [line.split(",", 1) for line in lines[1:]]
    for number, parts in enumerate(names):
        if len(parts) != 2:
            raise UserError(
                f"{path}, line {number + 2}: expected 'video/frame.jpg' and 15 numbers, found '{lines[number + 1]}'"
            )
    numbers = parse_numbers([rest for _, rest in names], 15, path, first_line=2)
    keys = [parse_location(name, path, number + 2) for number, (name, _) in enumerate(names)]
    return _tracks_from_rows(keys, numbers[:, MTL_COLUMNS[task.name]], task, path)


def parse_location(location: str, path: Path, line: int) -> tuple[str, int]:
    """`video/00017.jpg` -> (video, 17)."""
    id, slash, name = location.strip().rpartition("/")
    stem = name.split(".", 1)[0]
    if not slash or not id or not stem.isdigit() or int(stem) < 1:
        raise UserError(f"{path}, line {line}: expected an image location like 'video/00001.jpg', found '{location}'")
    return id, int(stem)


def _tracks_from_rows(keys: list[tuple[str, int]], values: np.ndarray, task: Task, path: Path) -> Tracks:
    """Tracks as long as the last frame listed; frames not listed carry the marker."""
    rows: dict[str, list[int]] = {}
    for row, (id, _) in enumerate(keys):
        rows.setdefault(id, []).append(row)
    tracks = {}
    for id in sorted(rows):
        frames = np.array([keys[row][1] for row in rows[id]])
        unique, counts = np.unique(frames, return_counts=True)
        if len(unique) != len(frames):
            raise UserError(f"{path}: frame {unique[counts > 1][0]} of {id} is listed twice")
        labels = np.full((int(frames.max()), task.label_width), task.marker, np.float32)
        labels[frames - 1] = values[rows[id]]
        track = make_track(labels, task, path, lambda row, id=id: f"frame {row + 1} of {id}")  # type: ignore[misc]
        if track.mask.any():
            tracks[id] = replace(track, listed=True)
    return tracks


def read_table(path: Path, task: Task, split: str | None) -> Tracks:
    """One task's labels out of a CSV or Parquet table (columns: see the module)."""
    columns = read_columns(path)
    wanted = LABEL_COLUMNS[task.name]
    if not any(name in columns for name in wanted):
        return {}
    missing = [name for name in ("video", "frame", *wanted) if name not in columns]
    if missing:
        raise UserError(f"{path} lacks the column(s) {', '.join(missing)}")
    keep: Iterable[int] = range(len(columns["frame"]))
    if split is not None and "split" in columns:
        short = split.lower().removesuffix("_set")
        keep = [row for row in keep if str(columns["split"][row]).lower().removesuffix("_set") == short]
    elif split == VALIDATION:
        return {}
    keep = list(keep)
    subjects = columns.get("subject")
    keys = []
    for row in keep:
        subject = str(subjects[row] or "") if subjects is not None else ""
        keys.append((f"{columns['video'][row]}{'_' if subject else ''}{subject}", int(columns["frame"][row])))
        if keys[-1][1] < 1:
            raise UserError(f"{path}, row {row + 1}: frame {keys[-1][1]}: frames count from 1")
    values = np.array([[columns[name][row] for name in wanted] for row in keep], np.float32)  # None becomes NaN
    values = np.where(np.isnan(values), np.float32(task.marker), values).reshape(len(keys), len(wanted))
    return _tracks_from_rows(keys, values, task, path)


def read_columns(path: Path) -> dict[str, Any]:
    """Columns of a CSV or Parquet file.

    Raises:
        UserError: when it is neither.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if path.suffix == ".parquet":
            table = parquet.read_table(path)
        elif path.suffix == ".csv":
            options = csv.ConvertOptions(column_types={"video": pa.string(), "subject": pa.string()})
            table = csv.read_csv(path, convert_options=options)
        else:
            raise UserError(f"{path}: a table of labels is a .csv or .parquet file (an MTL file is a .txt)")
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return {name: table[name].to_pylist() for name in table.column_names}
