"""Labels as tables (CSV, Parquet) and as pictures in class-named folders: the same for every stage.

A table has the columns `video`, `subject` (optional), `frame` (from 1; without it a row labels its whole video),
`split` or `usage` (optional: train, validation, test and their usual synonyms) and, by task:

* `valence` and `arousal` in [-1, 1];
* `expression` (0 to 7, or names), `label` or `emotion` (names), or columns of raters' votes named for classes;
* `AU1` ... `AU26`: 0, 1, or an intensity between.

An empty cell, or the task's marker, means "not annotated".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from checkpoints.decimals import decimal
from checkpoints.errors import UserError, some
from checkpoints.reading import in_lines, shown, visible
from wildaffect.tasks.class_map import ClassMap
from wildaffect.tasks.label_track import Spans, Tracks, checked_labels, tracks_from_rows
from wildaffect.tasks.split_words import TRAIN, VALIDATION, split_of_word
from wildaffect.tasks.tables import Table, read_table
from wildaffect.tasks.task import AUS, EXPRESSIONS, Task

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
LABEL_COLUMNS = {"va": ("valence", "arousal"), "au": AUS}
CLASS_COLUMNS = ("expression", "label", "emotion")
SPLIT_COLUMNS = ("split", "usage")  # FER2013 and FER+ call it Usage
KEYS = ("video", "subject", "frame", *SPLIT_COLUMNS)
MOST_VOTES = 1e9
NO_SPLIT = ("", "none")


def read_label_table(path: Path, task: Task, split: str | None, class_map: ClassMap, spans: Spans | None) -> Tracks:
    """One task's labels of one split (None: all rows); empty if the table has no such labels.

    Raises:
        UserError: Names the row, the column and the remedy.
    """
    table = read_table(path)
    if "video" not in table:
        raise UserError(f"{path} has no column video, which says whose labels the rows are")
    found = _expressions(table, class_map) if task.name == "expr" else _numbers(table, LABEL_COLUMNS[task.name], task)
    if found is None:
        return {}
    labels, soft = found
    of_split, unnamed = _rows_of_split(table, split)
    keep = np.flatnonzero(of_split)
    if unnamed and split is not None:
        class_map.notes.append(f"{unnamed:,} rows of {path.name} name no split: they are in none")
    if soft is not None and (lost := int((~task.mask(labels[keep])).sum())):
        where = f" of {split}" if split else ""
        class_map.notes.append(f"{lost:,} rows{where} have no vote, or most of their votes are for classes left out")
    subjects = table.subjects()
    videos = table.ids("video")
    ids = [f"{videos[row]}_{subjects[row]}" if subjects[row] else videos[row] for row in keep]

    def tracks(ids: list[str], rows: np.ndarray, frames: np.ndarray) -> Tracks:
        def refuse(row: int, column: str, problem: str) -> UserError:
            return table.error(int(rows[row]), column or "frame", problem)

        return tracks_from_rows(ids, frames, labels[rows], task, path, refuse, None if soft is None else soft[rows])

    if "frame" in table:
        return tracks(ids, keep, table.frames()[keep])
    if spans is None:
        raise UserError(f"{path} has no column frame, which says which frames the rows label")
    if repeated := [id for id, count in Counter(ids).items() if count > 1]:
        raise UserError(f"{path} has several rows of {repeated[0]} and no column frame to tell them apart")
    ranges = [spans.get(id, (1, 1)) for id in ids]
    rows = np.repeat(keep, [last - first + 1 for first, last in ranges])
    frames = np.concatenate([np.zeros(0, int), *(np.arange(first, last + 1) for first, last in ranges)])
    every = [id for id, (first, last) in zip(ids, ranges, strict=True) for _ in range(first, last + 1)]
    return tracks(every, rows, frames)


def _rows_of_split(table: Table, split: str | None) -> tuple[np.ndarray, int]:
    """`[N]` bool, and how many rows name no split. Without such a column every row is a training row."""
    column = next((name for name in SPLIT_COLUMNS if name in table), None)
    if column is None:
        return np.full(len(table), split in (None, TRAIN)), 0
    found, unnamed = [], 0
    for row, word in enumerate(table.texts(column)):
        meant = split_of_word(word)
        if meant is None and word.lower() not in NO_SPLIT:
            raise table.error(row, column, f"{shown(word)} is not a split: expected train, validation or test")
        unnamed += meant is None
        found.append(split is None or meant == split)
    return np.array(found, bool), unnamed


def _numbers(table: Table, columns: Sequence[str], task: Task) -> tuple[np.ndarray, None] | None:
    """Valence and arousal, or action units: `[N, label_width]`; None if the table has none of the columns."""
    missing = [name for name in columns if name not in table]
    if len(missing) == len(columns):
        return None
    if missing:
        raise UserError(f"{table.path} lacks the column(s) {', '.join(missing)}")
    labels = np.stack([table.numbers(name) for name in columns], axis=1)
    labels = np.where(np.isnan(labels), task.marker, labels)
    return checked_labels(labels, task.bad_targets(labels), task, table.error), None


def _expressions(table: Table, class_map: ClassMap) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Class numbers `[N, 1]` (-1: not annotated) and, from votes, distributions `[N, 8]`; None without any."""
    column = next((name for name in CLASS_COLUMNS if name in table), None)
    if column is not None:
        return _classes(table, column, class_map), None
    votes = [name for name in table.names if name.lower() not in KEYS and class_map.knows(name)]
    if not votes:
        return None
    others = [
        name for name in table.names if name.lower() not in KEYS and name not in votes and _is_numeric(table, name)
    ]
    if others:
        class_map.notes.append(f"these columns of {table.path.name} are not named for a class: {', '.join(others)}")
    counts = np.nan_to_num(np.stack([table.numbers(name) for name in votes], axis=1))
    bad = (counts < 0) | (counts > MOST_VOTES)
    if bad.any():
        row, place = (int(index[0]) for index in np.nonzero(bad))
        raise table.error(row, votes[place], f"{counts[row, place]:g} is not a number of votes")
    soft = votes_to_targets(counts, [class_map(name, table.path) for name in votes])
    return np.where(soft.sum(axis=1) > 0, soft.argmax(axis=1), -1).astype(np.float32)[:, None], soft


def _classes(table: Table, column: str, class_map: ClassMap) -> np.ndarray:
    """Class numbers `[N, 1]`. In `expression` numbers are the challenge's; elsewhere the class map must say so."""
    known: dict[str, int] = {"": -1}
    for row, cell in enumerate(table.texts(column)):
        if cell in known:
            continue
        where = f"{table.path}, row {row + 1}, column {column}"
        number = decimal(cell)
        if column == "expression" and number is not None:
            found = class_map.of_number(number, where)
        else:
            found = class_map(cell, where)
        known[cell] = -1 if found is None else found
    return np.array([known[cell] for cell in table.texts(column)], np.float32)[:, None]


def _is_numeric(table: Table, name: str) -> bool:
    try:
        return bool(np.isfinite(table.numbers(name)).any())
    except UserError:
        return False


def votes_to_targets(votes: np.ndarray, classes: Sequence[int | None]) -> np.ndarray:
    """Raters' votes to distributions.

    Args:
        votes: `[N, K]` numbers of votes.
        classes: `[K]` expression of each column; None: left out.

    Returns:
        `[N, 8]` float32; a row of zeros if there is no vote, or more than half of them are for classes left out.
    """
    targets = np.zeros((len(votes), len(EXPRESSIONS)), np.float32)
    for column, number in enumerate(classes):
        if number is not None:
            targets[:, number] += votes[:, column]
    kept = targets.sum(axis=1)
    use = (kept > 0) & (2 * kept >= votes.sum(axis=1))
    return np.where(use[:, None], targets / np.maximum(kept, 1e-9)[:, None], 0).astype(np.float32)


def is_class_folder(root: Path) -> bool:
    """Whether a folder holds pictures in subfolders and no annotation files (other text files do not matter)."""
    splits = {TRAIN.lower(), VALIDATION.lower()}
    annotated = any(splits & {file.parent.name.lower(), file.stem.lower()} for file in visible(root.rglob("*.txt")))
    return not annotated and any(file.suffix.lower() in PICTURE_SUFFIXES for file in visible(root.rglob("*")))


def read_class_folder(root: Path, task: Task, split: str | None, class_map: ClassMap, ids: Iterable[str]) -> Tracks:
    """Expressions of pictures in class-named folders, which may stand in folders named for the splits.

    Args:
        root: The folder.
        task: The expression task.
        split: Which pictures; without folders named for splits, every picture is a training picture.
        class_map: What the folders' names mean.
        ids: Ids that a store or cache has, to recognise what preprocessing called each picture.
    """
    files = [
        file for file in visible(root.rglob("*")) if file.suffix.lower() in PICTURE_SUFFIXES and file.parent != root
    ]
    stems = Counter(file.stem for file in files)
    splits = [next(filter(None, map(split_of_word, file.relative_to(root).parts[:-1])), None) for file in files]
    if any(splits) and None in splits and split is not None:
        other = sorted(
            {file.parent.relative_to(root).as_posix() for file, named in zip(files, splits, strict=True) if not named}
        )
        class_map.notes.append(
            f"{splits.count(None):,} pictures are in folders that name no split, and are in none: {some(other, 3)}"
        )
    known = set(ids)
    found: dict[str, int] = {}
    for file, named in zip(files, splits, strict=True):
        number = class_map(file.parent.name, root)
        wanted = split is None or (named == split if any(splits) else split == TRAIN)
        if number is not None and wanted:
            names = _names_in_store(file.relative_to(root), unique=stems[file.stem] == 1)
            found[next((name for name in names if name in known), names[0])] = number
    labels = np.array([*found.values()], np.float32).reshape(-1, 1)
    return tracks_from_rows([*found], np.ones(len(found), int), labels, task, root, in_lines(root))


def _names_in_store(relative: Path, *, unique: bool) -> list[str]:
    """What preprocessing may have called a picture: by its folders, by its ending besides, or by its stem alone."""
    whole = relative.as_posix().replace("/", "__")
    return [relative.with_suffix("").as_posix().replace("/", "__"), whole, *([relative.stem] if unique else [])]
