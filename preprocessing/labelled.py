"""Picture data sets with labels: AffectNet in both released forms, and RAF-DB. Writes the labels of a store."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath

import pyarrow as pa
import pyarrow.parquet as pq

from checkpoints.artifact import atomic_file
from checkpoints.decimals import decimal, whole_number
from checkpoints.errors import UserError
from checkpoints.reading import (
    first_line,
    in_lines,
    read_lines,
    read_npy,
    shown,
    visible,
)
from preprocessing.items import Item, Label
from preprocessing.tables import table_labels
from wildaffect.tasks.labels import children, subfolder
from wildaffect.tasks.split_words import split_name
from wildaffect.tasks.tables import Table, read_table
from wildaffect.tasks.task import EXPRESSIONS

LABELS = "labels.parquet"

# The data sets' class numbers, by their names in `EXPRESSIONS`, which has no class for contempt: it becomes "Other".
AFFECTNET = ("Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger", "Other")
AFFECTNET_NO_FACE = 10
AFFECTNET_NO_VALUE = -2
PLACE = "subDirectory_filePath"
BOX = ("face_x", "face_y", "face_width", "face_height")
RAFDB_NAME = re.compile(r"(train|test)_[\w.-]{1,100}", re.ASCII)
RAFDB = ("Surprise", "Fear", "Disgust", "Happiness", "Sadness", "Anger", "Neutral")


def find_labelled(root: Path, *, crops: bool) -> Iterator[Item] | None:
    """The labelled pictures of a known data set; None for any other folder."""
    lists = [path for name in ("training.csv", "validation.csv") for path in below(root, name)]
    # A list in another encoding than UTF-8 is known too, so that its reader can refuse it.
    known = [path for path in lists if PLACE in first_line(path).replace("\0", "")]
    if known:
        beside = {path.parent for path in known}
        if odd := [path for path in lists if path not in known and path.parent in beside]:
            raise UserError(f"{odd[0]}, line 1: expected the header of AffectNet's lists, {PLACE},face_x,...")
        return _affectnet_lists(root, known)
    sets = [folder for folder in (subfolder(root, "train_set"), subfolder(root, "val_set")) if folder]
    sets = [folder for folder in sets if subfolder(folder, "annotations")]
    if sets:
        return _affectnet_sets(root, sets)
    partition = next(iter(below(root, "list_patition_label.txt")), None)  # sic
    if partition:
        return _rafdb(root, partition, "aligned" if crops else "original")
    return None


def below(root: Path, pattern: str) -> list[Path]:
    """What lies anywhere below a folder and matches a name or a glob pattern, in any letter case."""
    return visible(root.rglob(re.sub("[a-z]", lambda letter: f"[{letter[0]}{letter[0].upper()}]", pattern.lower())))


def _affectnet_lists(root: Path, lists: Sequence[Path]) -> Iterator[Item]:
    """The first form: photographs in numbered folders, with lists that give each face's box and label."""
    for path in lists:
        table = read_table(path)
        if missing := [name for name in (PLACE, *BOX, "expression", "valence", "arousal") if name not in table]:
            raise UserError(f"{path} is not a list of AffectNet: it lacks the column(s) {', '.join(missing)}")
        numbers = zip(*(table.numbers(name).tolist() for name in BOX), strict=True)
        labels = _affectnet_labels(table, split_name(path.stem))
        base = None
        first: dict[tuple[str, float, float], int] = {}
        for row, (place, (x, y, width, height), label) in enumerate(
            zip(table.ids(PLACE), numbers, labels, strict=True)
        ):
            if not all(0 <= abs(value) < 1e6 for value in (x, y, width, height)):
                raise table.error(row, BOX[0], "expected the box of a face in pixels")
            if first.setdefault((place, x, y), row) != row:
                raise table.error(row, PLACE, f"row {first[place, x, y] + 1} has the same face of {place}")
            if PurePath(place).is_absolute() or ".." in PurePath(place).parts:
                raise table.error(row, PLACE, f"expected a picture below {root.name}, found {shown(place)}")
            base = base or _base(root, place, path)
            if label is not None:
                image = base / place
                name = image.relative_to(root).as_posix()
                box = (x, y, x + width, y + height)
                yield Item(image.stem, image, name, "picture", _size(image), box=box, label=label)


def _affectnet_labels(table: Table, split: str | None) -> list[Label | None]:
    """Labels of a list's rows."""
    expressions = table.numbers("expression").tolist()
    values = zip(table.numbers("valence").tolist(), table.numbers("arousal").tolist(), strict=True)
    labels = []
    for row, (expression, (valence, arousal)) in enumerate(zip(expressions, values, strict=True)):
        labels.append(_affectnet_label(split, expression, valence, arousal, partial(table.error, row)))
    return labels


def _base(root: Path, place: str, path: Path) -> Path:
    """The folder that the paths in a list are relative to."""
    folders = [root, *(p for p in below(root, "*Annotated*") if p.is_dir())]
    for folder in folders:
        if (folder / place).exists() or (folder / place).parent.is_dir():
            return folder
    raise UserError(f"{path} lists {place}, which is in none of {', '.join(str(f) for f in folders)}")


def _affectnet_sets(root: Path, sets: Sequence[Path]) -> Iterator[Item]:
    """The second form: cropped faces in `images`, and three small files per face in `annotations`."""
    for folder in sets:
        annotations, split = subfolder(folder, "annotations") or folder, folder.name.lower()
        for image in sorted(children(subfolder(folder, "images"), "*"), key=lambda p: (len(p.stem), p.stem)):
            files = {
                name: annotations / f"{image.stem}_{name[:3]}.npy" for name in ("expression", "valence", "arousal")
            }
            values = {}
            for name, path in files.items():
                number = decimal(str(read_npy(path)))
                if number is None:
                    raise UserError(f"{path} holds no number: expected the annotation of {image.name}")
                values[name] = number
            refuse = partial(_in_file, files)
            label = _affectnet_label(split_name(split), refuse=refuse, **values)
            if label is not None:
                name = image.relative_to(root).as_posix()
                yield Item(f"{split}_{image.stem}", image, name, "picture", _size(image), label=label)


def _in_file(files: Mapping[str, Path], column: str, problem: str) -> UserError:
    return UserError(f"{files[column]}: {problem}")


def _affectnet_label(
    split: str | None, expression: float, valence: float, arousal: float, refuse: Callable[[str, str], UserError]
) -> Label | None:
    """The label, or None for a picture without a face. A value of -2 means valence and arousal are not annotated.

    Raises:
        UserError: Made by `refuse` from the name of a column and what is wrong with it: a number is not a label.
    """
    if expression not in range(AFFECTNET_NO_FACE + 1):
        raise refuse("expression", f"{expression:.10g} is not a class of AffectNet (0 to {AFFECTNET_NO_FACE})")
    for name, value in (("valence", valence), ("arousal", arousal)):
        if not (-1 <= value <= 1 or value == AFFECTNET_NO_VALUE):
            raise refuse(name, f"{value:.10g} is out of range: expected -1 to 1, or {AFFECTNET_NO_VALUE}")
    if expression == AFFECTNET_NO_FACE:
        return None
    known = EXPRESSIONS.index(AFFECTNET[int(expression)]) if expression < len(AFFECTNET) else None
    annotated = AFFECTNET_NO_VALUE not in (valence, arousal)
    return Label(split, known, *((valence, arousal) if annotated else (None, None)))


def _rafdb(root: Path, partition: Path, form: str) -> Iterator[Item]:
    """RAF-DB's basic expressions: lines `train_00001.jpg 5`, and pictures in `Image/original` and `Image/aligned`."""
    top = partition.parent.parent
    folder = subfolder(subfolder(top, "Image") or top, form)
    if folder is None:
        raise UserError(f"{partition} lists pictures, but {top / 'Image' / form} does not exist")
    refuse, lines = in_lines(partition, 1), read_lines(partition)
    if not lines:
        raise refuse(0, "", "it lists no picture")
    seen = set()
    for row, line in enumerate(lines):
        name, _, value = line.strip().partition(" ")
        number = whole_number(value.strip())
        if not number or number > len(RAFDB) or not RAFDB_NAME.fullmatch(name):
            raise refuse(row, "", f"expected 'train_00001.jpg 1..7' or 'test_0001.jpg 1..7', found {shown(line)}")
        stem = Path(name).stem
        if stem in seen:
            raise refuse(row, "", f"{stem} is listed twice")
        seen.add(stem)
        image = folder / (f"{stem}_aligned.jpg" if form == "aligned" else name)
        split = "train" if name.startswith("train") else "validation"
        label = Label(split, EXPRESSIONS.index(RAFDB[number - 1]))
        place = image.relative_to(root).as_posix()
        yield Item(stem, image, place, "picture", _size(image), label=label)


def _size(path: Path) -> int:
    """Bytes of a file; 0 if it is missing, which is reported when it is read."""
    return path.stat().st_size if path.exists() else 0


def write_labels(store: Path, items: Sequence[Item]) -> bool:
    """Write the labels that came with the pictures to `labels.parquet`, which can be passed to training as `--labels`.

    The columns are `video`, `frame`, `split`, `expression` (index into `EXPRESSIONS`), `valence` and `arousal`. A table
    keeps all its columns except the picture.

    Returns:
        Whether there were any labels.
    """
    parts = []
    labelled = [(item.video, item.label) for item in items if item.label]
    if labelled:
        columns: dict[str, list[object]] = {"video": [video for video, _ in labelled], "frame": [1] * len(labelled)}
        for name in ("split", "expression", "valence", "arousal"):
            columns[name] = [getattr(label, name) for _, label in labelled]
        parts.append(pa.table(columns))
    for item in items:
        if item.kind == "table" and item.rows[1]:
            try:
                table = table_labels(item)
            except UserError:  # reading its pictures has reported it
                continue
            if table.num_columns > 2:
                parts.append(table)
    if not parts:
        return False
    with atomic_file(store / LABELS) as temporary:
        pq.write_table(pa.concat_tables(parts, promote_options="permissive"), temporary)
    return True
