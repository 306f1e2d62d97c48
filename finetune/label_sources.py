"""Where expression labels come from: Aff-Wild2 annotations, tables of classes or of votes, class-named folders."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.artifact import read_json
from checkpoints.errors import UserError
from preprocessing.faces import PICTURE_SUFFIXES
from preprocessing.faces import Sequence as FaceSequence
from wildaffect.tasks import EXPRESSIONS, TASKS
from wildaffect.tasks.labels import TRAIN, VALIDATION, read_annotations, read_columns

CLASSES = len(EXPRESSIONS)
SPLITS = {
    TRAIN: ("train", "training", "train_set"),
    VALIDATION: ("validation", "valid", "val", "dev", "validation_set", "val_set"),
}
OTHER_SPLITS = ("", "none", "test", "testing", "test_set")
KEYS = ("video", "subject", "frame", "split")

# Names that data sets use, in lower case. Contempt has no class of its own among the eight: it is one of "Other".
SYNONYMS: dict[str, str | None] = {
    **{name.lower(): name for name in EXPRESSIONS},
    "angry": "Anger",
    "disgusted": "Disgust",
    "afraid": "Fear",
    "fearful": "Fear",
    "happy": "Happiness",
    "joy": "Happiness",
    "sad": "Sadness",
    "surprised": "Surprise",
    "contempt": "Other",
    **dict.fromkeys(("", "-1", "nf", "no face", "no-face", "none", "uncertain", "unknown")),
}


@dataclass(frozen=True)
class SequenceLabels:
    """Labels of one subject of one video.

    Attributes:
        frames: `[n]` 1-based frame numbers.
        targets: `[n, 8]` float32 distributions over the expressions.
    """

    frames: np.ndarray
    targets: np.ndarray


Source = dict[str, SequenceLabels]


class ClassMap:
    """From the labels' class names to the eight expressions; None: frames of that class are left out.

    Args:
        path: JSON object of names; names it does not list are looked up as they are.

    Attributes:
        used: What each name among the labels was taken for.
        notes: What was passed over in the labels and why.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        given = {} if path is None else read_json(path)
        if not isinstance(given, dict):
            raise UserError(f'{path}: expected a JSON object such as {{"contempt": "Other", "unknown": null}}')
        for name, target in given.items():
            if target is not None and target not in EXPRESSIONS:
                raise UserError(f"{path}: {name!r} is mapped to {target!r}, which is none of {', '.join(EXPRESSIONS)}")
        self._given = {name.lower(): target for name, target in given.items()}
        self.used: dict[str, str | None] = {}
        self.notes: list[str] = []

    def knows(self, name: str) -> bool:
        """Whether a name means something."""
        return name.lower() in self._given or name.lower() in SYNONYMS

    def __call__(self, name: object, where: object) -> int | None:
        """Number of the expression that a name means, or None.

        Raises:
            UserError: Nobody said what it means.
        """
        name = str(name)
        if not self.knows(name):
            raise UserError(
                f"{where} has a class {name!r}, which is none of the eight expressions ({', '.join(EXPRESSIONS)}): say "
                f'what it is with --class-map FILE, a JSON object such as {{"{name}": "Other"}} (null: leave out)'
            )
        key = name.lower()
        return self._take(name, self._given[key] if key in self._given else SYNONYMS[key])

    def of_number(self, number: float, where: object) -> int | None:
        """Number of the expression that a class number means (the challenge's, unless the map says otherwise), or None.

        Raises:
            UserError: It is neither -1 (not annotated) nor one of the eight, and nobody said what it means.
        """
        text = f"{number:g}"
        if text in self._given:
            return self._take(text, self._given[text])
        if number == -1:
            return None
        if number not in range(CLASSES):
            raise UserError(
                f"{where}: {text} is no expr label (0 to 7, or -1 for not annotated): say what it is with --class-map "
                f'FILE, a JSON object such as {{"{text}": "Other"}} (null: leave out)'
            )
        name = EXPRESSIONS[int(number)].lower()
        return self._take(name, self._given[name]) if name in self._given else int(number)

    def _take(self, name: str, target: str | None) -> int | None:
        self.used[name] = target
        return None if target is None else EXPRESSIONS.index(target)


def read_source(labels: Path, split: str | None, class_map: ClassMap, sequences: Mapping[str, FaceSequence]) -> Source:
    """Labels of one split by sequence id; empty where the labels have no such split.

    Args:
        labels: Folder or file.
        split: `Train_Set` or `Validation_Set`; None: all there are.
        class_map: What class names mean.
        sequences: The store's sequences by id. Each picture of a class-named folder is one of them; a table without
            frame numbers labels all their frames.

    Raises:
        UserError: They cannot be read, or hold a class or number that means nothing.
    """
    if labels.is_dir() and _is_class_folder(labels):
        return _read_folder(labels, split, class_map, sequences)
    if labels.suffix in (".csv", ".parquet") and labels.is_file():
        return _read_table(labels, read_columns(labels), split, class_map, sequences)
    found = [class_map.of_number(number, labels) for number in range(CLASSES)]
    meaning = np.array([-1 if number is None else number for number in found])
    source = {}
    for part in (split,) if split else (TRAIN, VALIDATION, None):
        for id, track in read_annotations(labels, TASKS["expr"], part).items():
            seen = np.flatnonzero(track.mask[:, 0])
            classes = meaning[track.labels[seen, 0].astype(int)]
            source[id] = SequenceLabels(seen[classes >= 0] + 1, one_hot(classes[classes >= 0]))
    return source


def one_hot(classes: np.ndarray) -> np.ndarray:
    """Class numbers `[n]` to distributions `[n, 8]`."""
    return np.eye(CLASSES, dtype=np.float32)[classes]


def votes_to_targets(votes: np.ndarray, classes: Sequence[int | None]) -> np.ndarray:
    """Raters' votes to distributions.

    Args:
        votes: `[n, K]` numbers of votes.
        classes: `[K]` expression of each column; None: left out.

    Returns:
        `[n, 8]` float32; a row of zeros where there is no vote, or more than half of them are for classes left out.
    """
    targets = np.zeros((len(votes), CLASSES), np.float32)
    for column, number in enumerate(classes):
        if number is not None:
            targets[:, number] += votes[:, column]
    kept = targets.sum(axis=1)
    use = (kept > 0) & (2 * kept >= votes.sum(axis=1))
    return np.where(use[:, None], targets / np.maximum(kept, 1e-9)[:, None], 0).astype(np.float32)


def _read_table(
    path: Path,
    columns: dict[str, list[Any]],
    split: str | None,
    class_map: ClassMap,
    sequences: Mapping[str, FaceSequence],
) -> Source:
    if "video" not in columns:
        raise UserError(f"{path} lacks the column video, which says which rows of the store its labels belong to")
    keep = _rows_of_split(path, columns, split)
    name = next((name for name in ("expression", "label", "emotion") if name in columns), None)
    if name is not None:
        # Numbers in `expression` are the challenge's; in another column nobody knows whose.
        numeric = name == "expression" and not any(isinstance(value, str) for value in columns[name])
        meaning: Callable[[Any, Path], int | None] = class_map.of_number if numeric else class_map
        values = [columns[name][row] for row in keep]
        numbers = [None if _is_empty(value) else meaning(value, path) for value in values]
        keep = [row for row, number in zip(keep, numbers, strict=True) if number is not None]
        targets = one_hot(np.array([number for number in numbers if number is not None], int))
    else:
        votes = [
            column for column, values in columns.items() if column not in KEYS and class_map.knows(column) and values
        ]
        if not votes:
            raise UserError(
                f"{path} has no column expression (0..7 or names), label or emotion, and no columns of votes named for "
                f"classes; its columns are {', '.join(columns)}"
            )
        counts = _numbers(path, columns, votes, keep)
        targets = votes_to_targets(counts, [class_map(column, path) for column in votes])
        class_map.notes += _passed_over(path, columns, votes, int((targets.sum(axis=1) == 0).sum()), split)
    return _by_sequence(path, columns, keep, targets, sequences)


def _numbers(path: Path, columns: dict[str, list[Any]], names: Sequence[str], keep: Sequence[int]) -> np.ndarray:
    """Numbers of votes `[rows, columns]`; an empty cell is none."""
    try:
        found = np.array([[columns[name][row] or 0 for name in names] for row in keep], np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: the columns {', '.join(names)} should hold numbers of votes: {error}") from None
    if not (found >= 0).all():
        raise UserError(f"{path} holds numbers of votes below 0 or that are none")
    return found.reshape(-1, len(names))


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and isnan(cell))


def _passed_over(
    path: Path, columns: dict[str, list[Any]], votes: Sequence[str], lost: int, split: str | None
) -> list[str]:
    others = [
        name
        for name, values in columns.items()
        if name not in (*KEYS, *votes) and isinstance(next((v for v in values if v is not None), None), (int, float))
    ]
    notes = [f"columns of {path.name} that no class is named like are no votes: {', '.join(others)}"] if others else []
    where = f" of {split}" if split else ""
    return notes + ([f"{lost:,} rows{where} have no vote, or most of theirs left out: left out"] if lost else [])


def _rows_of_split(path: Path, columns: dict[str, list[Any]], split: str | None) -> list[int]:
    rows = range(len(columns["video"]))
    if "split" not in columns:
        return list(rows) if split in (None, TRAIN) else []
    found = [str(value or "").lower() for value in columns["split"]]
    known = {*OTHER_SPLITS, *(name for names in SPLITS.values() for name in names)}
    if strange := sorted({*found} - known):
        raise UserError(f"{path} has a split {strange[0]!r}: expected train, validation or test in the column split")
    return [row for row in rows if split is None or found[row] in SPLITS[split]]


def _by_sequence(
    path: Path,
    columns: dict[str, list[Any]],
    keep: Sequence[int],
    targets: np.ndarray,
    sequences: Mapping[str, FaceSequence],
) -> Source:
    rows: dict[str, list[int]] = {}
    subjects = columns.get("subject")
    for place, row in enumerate(keep):
        subject = str(subjects[row] or "") if subjects else ""
        rows.setdefault(f"{columns['video'][row]}{'_' if subject else ''}{subject}", []).append(place)
    source = {}
    for id, places in rows.items():
        frames, targets_of = _frames(path, columns, [keep[place] for place in places], id), targets[places]
        if "frame" not in columns and id in sequences:
            frames = np.arange(sequences[id].length) + sequences[id].first_frame
            targets_of = np.repeat(targets_of, len(frames), axis=0)
        labelled = targets_of.sum(axis=1) > 0
        source[id] = SequenceLabels(frames[labelled], targets_of[labelled])
    return source


def _frames(path: Path, columns: dict[str, list[Any]], rows: Sequence[int], id: str) -> np.ndarray:
    """Frame numbers of a sequence's rows; without such a column there is one row for all of its frames."""
    try:
        frames = np.array([int(columns["frame"][row]) for row in rows] if "frame" in columns else [1] * len(rows))
    except (TypeError, ValueError):
        frames = np.zeros(1, int)
    if len(np.unique(frames)) != len(rows) or frames.min() < 1:
        what = "not distinct numbers from 1 on" if "frame" in columns else "not told apart: it lacks the column frame"
        raise UserError(f"{path}: the frames of {id} are {what}")
    return frames


def _is_class_folder(root: Path) -> bool:
    """Whether a folder holds pictures in subfolders, and no annotations (other text files may lie about)."""
    splits = {TRAIN.lower(), VALIDATION.lower()}
    annotated = any(splits & {file.parent.name.lower(), file.stem.lower()} for file in root.rglob("*.txt"))
    return not annotated and any(file.suffix.lower() in PICTURE_SUFFIXES for file in root.rglob("*"))


def _read_folder(root: Path, split: str | None, class_map: ClassMap, ids: Iterable[str]) -> Source:
    """Pictures in class-named folders, possibly below folders named for the splits."""
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() in PICTURE_SUFFIXES and file.parent != root)
    stems = Counter(file.stem for file in files)
    splits = [_split_of(file.relative_to(root).parts) for file in files]
    source: Source = {}
    for file, found in zip(files, splits, strict=True):
        number = class_map(file.parent.name, root)
        wanted = split is None or (found == split if any(splits) else split == TRAIN)
        if number is not None and wanted:
            names = _names_in_store(file.relative_to(root), unique=stems[file.stem] == 1)
            id = next((name for name in names if name in ids), names[0])
            source[id] = SequenceLabels(np.array([1]), one_hot(np.array([number])))
    return source


def _split_of(parts: Iterable[str]) -> str | None:
    return next((split for split, names in SPLITS.items() if any(part.lower() in names for part in parts)), None)


def _names_in_store(relative: Path, *, unique: bool) -> list[str]:
    """What preprocessing may have called a picture: by its folders, by its ending besides, or by its stem alone."""
    whole = relative.as_posix().replace("/", "__")
    return [relative.with_suffix("").as_posix().replace("/", "__"), whole, *([relative.stem] if unique else [])]
