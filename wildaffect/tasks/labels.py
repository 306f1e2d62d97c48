"""Reading labels: the one entry for every stage, and the release's tree and text files.

A release annotation file has a header and one line per frame; line k after the header is frame k, and a sequence is as
long as its label file says. The MTL challenge's file lists single frames. Tables and class-named folders are read by
`wildaffect.tasks.label_tables`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from checkpoints.decimals import LAST_FRAME, WHOLE, whole_number
from checkpoints.errors import UserError
from checkpoints.reading import (
    LONGEST_NAME,
    Refuse,
    first_line,
    in_lines,
    parse_rows,
    read_lines,
    shown,
    visible,
)
from wildaffect.tasks.class_map import ClassMap
from wildaffect.tasks.label_tables import is_class_folder, read_class_folder, read_label_table
from wildaffect.tasks.label_track import LabelTrack, Spans, Tracks, checked_labels, tracks_from_rows
from wildaffect.tasks.split_words import TRAIN, VALIDATION
from wildaffect.tasks.task import TASKS, Task

MTL_FOLDER = "MTL_Challenge"
MTL_HEADER = "image,valence,arousal,expression,aus"
MTL_COLUMNS = {"va": slice(0, 2), "expr": slice(2, 3), "au": slice(3, 15)}  # of the 15 numbers of a line
MTL_NAMES = tuple(name for task in TASKS.values() for name in task.label_columns)
MTL_FILES = {TRAIN: "train_set.txt", VALIDATION: "validation_set.txt"}
PLAIN_LOCATION = rf"^(?P<id>[!-~](?:[ -~]*[!-~])?)/{WHOLE}(?:\.[!-.0-~]*)?$"
"""Most image locations, as a pattern that takes a million of them apart at once."""


def is_synthetic(source: Path | str) -> bool:
    """Whether a file or folder is part of a SynthWild corpus."""
    place = Path(source).resolve()
    return any((folder / "synthwild.json").is_file() for folder in (place, *place.parents[:4]))


def read_annotations(
    root: Path | str,
    task: Task,
    split: str | None = None,
    *,
    class_map: ClassMap | None = None,
    spans: Spans | None = None,
) -> Tracks:
    """Labels of one task and split, by id. Every stage reads labels here.

    Args:
        root: The release, its "... ABAW Annotations" folder, the task's folder, a folder of `ID.txt`, a CSV or Parquet
            table, an MTL file or its folder, or for expressions a folder of class-named folders.
        task: Which labels.
        split: `Train_Set` or `Validation_Set`; None: everything in a table, and folders that have no splits.
        class_map: What class names and numbers mean; None: their usual meaning.
        spans: The sequences of the store or cache that the labels belong to. Tables without frame numbers and
            class-named folders need them.

    Returns:
        Id -> track, sorted by id. Empty if there is no such task or split (`require_annotations` raises instead).

    Raises:
        UserError: The root is missing, or a file is malformed; names the file and the line or row.
    """
    root = Path(root)
    class_map = class_map or ClassMap()
    if root.is_file() and root.suffix.lower() != ".txt" and not is_mtl_file(root):
        return read_label_table(root, task, split, class_map, spans)
    if root.is_file():
        return _mapped(read_mtl(root, task), task, class_map)
    # Annotations are looked for first: a release also holds millions of pictures, which nobody wants to list.
    released = any(find_folder(root, task, part) or find_mtl_file(root, part) for part in (TRAIN, VALIDATION))
    if task.name == "expr" and not released and is_class_folder(root):
        return read_class_folder(root, task, split, class_map, spans or {})
    folder = find_folder(root, task, split)
    if folder is not None:
        tracks = {path.stem: read_annotation_file(path, task) for path in children(folder, "*.txt")}
        return _mapped(tracks, task, class_map)
    mtl = find_mtl_file(root, split)
    return _mapped(read_mtl(mtl, task), task, class_map) if mtl else {}


def read_every_split(root: Path | str, task: Task, *, class_map: ClassMap, spans: Spans | None = None) -> Tracks:
    """Labels of all splits together, and of files without splits."""
    whole = read_annotations(root, task, class_map=class_map, spans=spans)
    if whole or Path(root).is_file():
        return whole
    return {
        id: track
        for split in (TRAIN, VALIDATION)
        for id, track in read_annotations(root, task, split, class_map=class_map, spans=spans).items()
    }


def _mapped(tracks: Tracks, task: Task, class_map: ClassMap) -> Tracks:
    """Class numbers of annotation files as the class map has them (usually unchanged)."""
    if task.name != "expr":
        return tracks
    found = [class_map.of_number(number, "the annotations") for number in range(len(task.columns))]
    if found == [*range(len(task.columns))]:
        return tracks
    meaning = np.array([*(-1 if number is None else number for number in found), -1], np.float32)  # the marker is last
    mapped = {id: meaning[track.labels.astype(int)] for id, track in tracks.items()}
    return {id: replace(tracks[id], labels=labels, mask=task.mask(labels)) for id, labels in mapped.items()}


def all_annotations(
    root: Path | str,
    *,
    class_map: ClassMap | None = None,
    spans: Spans | None = None,
    required: Collection[str] = tuple(TASKS),
) -> dict[str, dict[str, Tracks]]:
    """Task name -> split -> id -> track: everything a release annotates for training and validation.

    One task's folder stands for the release that it is part of. In a table, columns named like those of a task that is
    not `required` may hold anything: if they are no labels, the task has none.

    Args:
        root: See :func:`read_annotations`, as for `class_map` and `spans`.
        class_map: What class names and numbers mean.
        spans: The sequences that the labels belong to.
        required: Names of the tasks whose labels must be readable.

    Raises:
        UserError: A file is malformed.
    """
    root = Path(root)
    if root.name.lower() in FOLDERS:
        root = root.parent
    found: dict[str, dict[str, Tracks]] = {}
    for name, task in TASKS.items():
        try:
            found[name] = {
                split: read_annotations(root, task, split, class_map=class_map, spans=spans)
                for split in (TRAIN, VALIDATION)
            }
        except UserError:
            if name in required or root.is_dir():
                raise
            found[name] = {TRAIN: {}, VALIDATION: {}}
    return found


def require_annotations(root: Path | str, task: Task, split: str | None = None) -> Tracks:
    """Like :func:`read_annotations`, but raises a UserError if there are no labels."""
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
    for top in (root, *annotation_folders(root)):
        for folder in (subfolder(top, name) for name in (*task.folders, task.name)):
            if folder is not None:
                return folder if split is None else subfolder(folder, split)
    whose = root.parent if root.name.lower() in (TRAIN.lower(), VALIDATION.lower()) else root
    if whose.name.lower() in FOLDERS - folders_of(task):  # another task's
        return None
    if split is None or root.name.lower() == split.lower():  # this very folder
        own: Path | None = root
    else:
        own = subfolder(root, split)
    return own if children(own, "*.txt") else None


def folders_of(task: Task) -> frozenset[str]:
    """Names of a task's folder, in lower case."""
    return frozenset(name.lower() for name in (*task.folders, task.name))


FOLDERS = frozenset[str]().union(*map(folders_of, TASKS.values()))


def find_mtl_file(root: Path, split: str | None) -> Path | None:
    """The MTL challenge's file of a split below `root`, or None."""
    if split not in MTL_FILES:
        return None
    for top in (root, *sorted(child for child in root.iterdir() if child.is_dir())):
        for folder in (top, subfolder(top, MTL_FOLDER)):
            if files := [path for path in children(folder, MTL_FILES[split]) if path.is_file()]:
                return files[0]
    return None


def is_mtl_file(path: Path) -> bool:
    """Whether a file's first line is the MTL challenge's, whatever the file is called."""
    return first_line(path).replace(" ", "") == MTL_HEADER


def children(folder: Path | None, pattern: str) -> list[Path]:
    """What a folder holds by a name or a glob pattern, sorted; nothing if there is no such folder.

    Hidden files are passed over. Letter case does not matter: editions write `Train_Set` and `train_set`.
    """
    if folder is None or not folder.is_dir():
        return []
    return visible(path for path in folder.iterdir() if fnmatchcase(path.name.lower(), pattern.lower()))


def subfolder(folder: Path, name: str) -> Path | None:
    """The subfolder of that name, in any letter case."""
    return next((child for child in children(folder, name) if child.is_dir()), None)


def annotation_folders(root: Path) -> list[Path]:
    """The folders of annotations in a release, one per edition."""
    return [child for child in children(root, "*annotations*") if child.is_dir()]


def read_annotation_file(path: Path, task: Task) -> LabelTrack:
    """One `<id>.txt`.

    Raises:
        UserError: Names the line: a wrong header, not `label_width` numbers, an impossible value.
    """
    lines, refuse = read_lines(path), in_lines(path)
    if not lines or lines[0].replace(" ", "") != task.header:
        raise refuse(-1, "", f"expected the {task.name} header '{task.header}', found {shown(''.join(lines[:1]))}")
    numbers = parse_rows(lines[1:], task.label_columns, refuse)
    labels = checked_labels(numbers, task.bad_values(numbers), task, refuse)
    return LabelTrack(labels, task.mask(labels), path)


def read_mtl(path: Path, task: Task) -> Tracks:
    """One task's labels from an MTL challenge file (16 columns under a header of five names)."""
    lines, refuse = read_lines(path), in_lines(path)
    if not lines or lines[0].replace(" ", "") != MTL_HEADER:
        raise refuse(-1, "", f"expected the MTL header '{MTL_HEADER}', found {shown(''.join(lines[:1]))}")
    names = [line.split(",", 1) for line in lines[1:]]
    for row, parts in enumerate(names):
        if len(parts) != 2:
            raise refuse(row, "", f"expected 'video/frame.jpg' and 15 numbers, found {shown(lines[row + 1])}")
    numbers = parse_rows([rest for _, rest in names], MTL_NAMES, refuse)
    locations = parse_locations([location for location, _ in names], refuse)
    ids = [locations.ids[code] for code in locations.codes]
    part = numbers[:, MTL_COLUMNS[task.name]]
    labels = checked_labels(part, task.bad_values(part), task, refuse)
    return tracks_from_rows(ids, locations.frames, labels, task, path, refuse)


@dataclass(frozen=True)
class Locations:
    """Image locations taken apart, `video/00017.jpg` into `video` and 17.

    Attributes:
        ids: In order of first appearance.
        codes: `[N]` place of each location's id in `ids`.
        frames: `[N]` frame numbers.
    """

    ids: list[str]
    codes: np.ndarray
    frames: np.ndarray

    def repeated(self) -> int | None:
        """The first row that has the id and the frame of an earlier one; None if there is none."""
        _, first = np.unique(self.codes * (LAST_FRAME + 1) + self.frames, return_index=True)
        return None if len(first) == len(self.frames) else int(np.setdiff1d(np.arange(len(self.frames)), first)[0])


def parse_locations(locations: Sequence[str], refuse: Refuse) -> Locations:
    """Take image locations apart.

    Raises:
        UserError: Made by `refuse`: one is not an image location.
    """
    found = pc.extract_regex(pa.array(locations, pa.string()), PLAIN_LOCATION)
    if not found.null_count:
        encoded, frames = found.field("id").dictionary_encode(), found.field("number").cast(pa.int64()).to_numpy()
        ids = encoded.dictionary.to_pylist()
        if frames.all() and max(map(len, ids), default=0) <= LONGEST_NAME:
            return Locations(ids, encoded.indices.to_numpy().astype(np.int64), frames)
    known: dict[str, int] = {}  # slow: finds the fault, or reads unusual names
    codes, numbers = np.zeros(len(locations), np.int64), np.zeros(len(locations), np.int64)
    for row, location in enumerate(locations):
        id, _, name = location.strip().rpartition("/")
        frame = whole_number(name.split(".", 1)[0])
        if not frame or not id or len(id) > LONGEST_NAME:
            raise refuse(row, "", f"expected an image location like 'video/00001.jpg', found {shown(location)}")
        codes[row], numbers[row] = known.setdefault(id, len(known)), frame
    return Locations(list(known), codes, numbers)
