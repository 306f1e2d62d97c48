"""Picture data sets with labels: AffectNet in both released forms, and RAF-DB. Writes the labels of a store."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from checkpoints.artifact import atomic_file
from checkpoints.errors import UserError
from preprocessing.items import Item, Label
from preprocessing.tables import table_labels
from wildaffect.tasks.task import EXPRESSIONS

LABELS = "labels.parquet"

# The data sets' class numbers, by their names in `EXPRESSIONS`, which has no class for contempt: it becomes "Other".
AFFECTNET = ("Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger", "Other")
AFFECTNET_NO_FACE = 10
RAFDB = ("Surprise", "Fear", "Disgust", "Happiness", "Sadness", "Anger", "Neutral")

AFFECTNET_SPLITS = {"training": "train", "validation": "validation", "train_set": "train", "val_set": "validation"}


def find_labelled(root: Path, *, crops: bool) -> Iterator[Item] | None:
    """The labelled pictures of a known data set; None for any other folder."""
    lists = [path for name in ("training.csv", "validation.csv") for path in sorted(root.rglob(name))]
    lists = [path for path in lists if _header(path)[:1] == ["subDirectory_filePath"]]
    if lists:
        return _affectnet_lists(root, lists)
    sets = [root / name for name in ("train_set", "val_set") if (root / name / "annotations").is_dir()]
    if sets:
        return _affectnet_sets(root, sets)
    partition = next(iter(sorted(root.rglob("list_patition_label.txt"))), None)  # sic
    if partition:
        return _rafdb(root, partition, "aligned" if crops else "original")
    return None


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        return next(csv.reader(file), [])


def _affectnet_lists(root: Path, lists: Sequence[Path]) -> Iterator[Item]:
    """The first form: photographs in numbered folders, with lists that give each face's box and label."""
    for path in lists:
        with path.open(encoding="utf-8-sig", newline="") as file:
            base = None
            for number, row in enumerate(csv.DictReader(file), start=2):
                try:
                    place = row["subDirectory_filePath"]
                    x, y, width, height = (float(row[f"face_{name}"]) for name in ("x", "y", "width", "height"))
                    split, expression = AFFECTNET_SPLITS[path.stem], int(row["expression"])
                    label = _affectnet_label(split, expression, row["valence"], row["arousal"])
                except (KeyError, TypeError, ValueError) as error:
                    raise UserError(f"{path}, line {number}: not an AffectNet annotation: {error!r}") from None
                base = base or _base(root, place, path)
                if label is not None:
                    image = base / place
                    name = image.relative_to(root).as_posix()
                    box = (x, y, x + width, y + height)
                    yield Item(image.stem, image, name, "picture", _size(image), box=box, label=label)


def _base(root: Path, place: str, path: Path) -> Path:
    """The folder that the paths in a list are relative to."""
    folders = [root, *sorted(p for p in root.rglob("*Annotated*") if p.is_dir())]
    for folder in folders:
        if (folder / place).exists() or (folder / place).parent.is_dir():
            return folder
    raise UserError(f"{path} lists {place}, which is in none of {', '.join(str(f) for f in folders)}")


def _affectnet_sets(root: Path, sets: Sequence[Path]) -> Iterator[Item]:
    """The second form: cropped faces in `images`, and three small files per face in `annotations`."""
    for folder in sets:
        for image in sorted((folder / "images").iterdir(), key=lambda p: (len(p.stem), p.stem)):
            values = []
            for name in ("exp", "val", "aro"):
                path = folder / "annotations" / f"{image.stem}_{name}.npy"
                try:
                    values.append(str(np.load(path, allow_pickle=False)))
                except (OSError, ValueError) as error:
                    raise UserError(f"{path} cannot be read as the annotation of {image.name}: {error}") from None
            label = _affectnet_label(AFFECTNET_SPLITS[folder.name], int(float(values[0])), values[1], values[2])
            if label is not None:
                video = f"{folder.name}_{image.stem}"
                yield Item(video, image, image.relative_to(root).as_posix(), "picture", _size(image), label=label)


def _affectnet_label(split: str, expression: int, valence: str, arousal: str) -> Label | None:
    """The label, or None for a picture without a face. A value of -2 means valence and arousal are not annotated."""
    if expression == AFFECTNET_NO_FACE:
        return None
    known = EXPRESSIONS.index(AFFECTNET[expression]) if 0 <= expression < len(AFFECTNET) else None
    v, a = (float(value) for value in (valence, arousal))
    return Label(split, known, *((v, a) if v >= -1 and a >= -1 else (None, None)))


def _rafdb(root: Path, partition: Path, form: str) -> Iterator[Item]:
    """RAF-DB's basic expressions: lines `train_00001.jpg 5`, and pictures in `Image/original` and `Image/aligned`."""
    folder = partition.parent.parent / "Image" / form
    if not folder.is_dir():
        raise UserError(f"{partition} lists pictures, but {folder} does not exist")
    for number, line in enumerate(partition.read_text(encoding="utf-8").splitlines(), start=1):
        name, _, value = line.strip().partition(" ")
        if not value.strip().isdigit() or not 1 <= int(value) <= len(RAFDB):
            raise UserError(f"{partition}, line {number}: expected 'picture.jpg 1..7', found {line!r}")
        image = folder / (f"{Path(name).stem}_aligned.jpg" if form == "aligned" else name)
        split = "train" if name.startswith("train") else "validation"
        label = Label(split, EXPRESSIONS.index(RAFDB[int(value) - 1]))
        place = image.relative_to(root).as_posix()
        yield Item(Path(name).stem, image, place, "picture", _size(image), label=label)


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
