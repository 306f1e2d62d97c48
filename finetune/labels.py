"""Expression labels joined with the rows of a faces store, split into training and validation."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from checkpoints.errors import UserError, some
from finetune.frames import LabelledFrames
from preprocessing.faces import FacesStore
from wildaffect.tasks import AU, EXPR, EXPRESSIONS, Task
from wildaffect.tasks.class_map import ClassMap, taken_for
from wildaffect.tasks.folds import hold_out, read_known_ids, without
from wildaffect.tasks.label_track import LabelTrack
from wildaffect.tasks.labels import TRAIN, VALIDATION, read_annotations


@dataclass
class Split:
    """Training and validation frames of a store.

    Attributes:
        train: Frames to train on.
        validation: Frames that decide which weights are kept.
        class_map: What the labels' class names were taken for, if they have names.
        notes: What was left out and why, for the log and the report.
        units: Ids of the sequences of another store whose action units are learnt too.
        synthetic: Tasks whose training labels are all of drawn or rendered faces.
    """

    train: LabelledFrames
    validation: LabelledFrames
    class_map: dict[str, str | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    synthetic: list[str] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """Identifies which frames have which targets."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation):
            digest.update("\n".join(part.ids).encode())
            for array in (part.bounds, part.rows, part.targets):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def counts(self) -> dict[str, list[int]]:
        """Frames per class, by name of the split."""
        parts = {"training": self.train, "validation": self.validation}
        return {name: np.bincount(part.classes, minlength=len(EXPRESSIONS)).tolist() for name, part in parts.items()}

    def describe(self) -> str:
        """Class map, frames per class and notes, as text."""
        lines = taken_for(self.class_map)
        lines.append(f"{'':>12} " + " ".join(f"{name:>9}" for name in EXPRESSIONS))
        for (name, counts), part in zip(self.counts().items(), (self.train, self.validation), strict=True):
            numbers = " ".join(f"{count:>9,}" for count in counts)
            lines.append(f"{name:>12} {numbers}  of {len(part.ids):,} video(s)")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def read_split(
    store: FacesStore, labels: Path, *, class_map: Path | None = None, seed: int = 0, exclude: Path | None = None
) -> Split:
    """Read the labels of both splits and join them with the store.

    If the labels name no validation split, a tenth of the videos is held out.

    Args:
        store: The faces.
        labels: See :func:`wildaffect.tasks.labels.read_annotations`.
        class_map: JSON file; see :class:`wildaffect.tasks.class_map.ClassMap`.
        seed: Which videos are held out.
        exclude: List of ids whose recordings are neither trained nor validated on. `audit/folds.py` writes such lists
            for the evaluations of stage 3.

    Raises:
        UserError: There are no labels, or no labelled frame has a face in the store.
    """
    names, spans = ClassMap(class_map), store.spans()
    train, validation = (
        read_annotations(labels, EXPR, split, class_map=names, spans=spans) for split in (TRAIN, VALIDATION)
    )
    notes = list(dict.fromkeys(names.notes))
    if not train:
        raise UserError(
            f"{labels} holds no expression labels to train on: expected Aff-Wild2 annotations (the release root, its "
            "annotations folder or the EXPR folder in it), a CSV/Parquet table (a column split, if any, says train and "
            "validation), or pictures in class-named folders"
        )
    if exclude is not None:
        before = len(train) + len(validation)
        excluded = read_known_ids(exclude, {*spans, *train, *validation})
        train, validation = ({id: part[id] for id in without(part, excluded)} for part in (train, validation))
        notes.append(f"{before - len(train) - len(validation)} of {before} labelled videos are left out by {exclude}")
        if not train:
            raise UserError(f"{exclude} leaves no training video of {labels}")
    if not validation:
        sizes = {id: int(track.mask.sum()) for id, track in train.items()}
        kept, held = hold_out({id: size for id, size in sizes.items() if size} or sizes, 0.1, seed)
        notes.append(f"the labels name no validation split: {len(held)} of {len(kept) + len(held)} videos are held out")
        train, validation = {id: train[id] for id in kept}, {id: train[id] for id in held}
    if both := sorted(train.keys() & validation.keys()):
        raise UserError(f"{labels}: {some([*map(repr, both)], 3)} are in the training and in the validation split")
    apart = without(train, validation)
    if len(apart) < len(train):
        notes.append(
            f"{len(train) - len(apart)} of {len(train)} training videos are not trained on: their recording is "
            "also in the validation split (as another subject or part)"
        )
        train = {id: train[id] for id in apart}
    unlabelled = spans.keys() - train.keys() - validation.keys()
    if unlabelled:
        notes.append(f"{len(unlabelled):,} of {len(spans):,} sequences of the store have no expression labels")
    split = Split(
        join(store, EXPR, train, "training", labels, notes),
        join(store, EXPR, validation, "validation", labels, notes),
        names.used,
        notes,
    )
    for name, counts in split.counts().items():
        empty = [expression for expression, count in zip(EXPRESSIONS, counts, strict=True) if not count]
        if empty:
            notes.append(f"no {name} frame shows {', '.join(empty)}: {_WITHOUT[name]}")
    return split


_WITHOUT = {
    "training": "the classifier cannot learn what has no example",
    "validation": "macro F1 is over the other classes, and no challenge score",
}


def read_units(store: FacesStore, labels: Path, notes: list[str]) -> LabelledFrames:
    """Training frames of a store with the intensities of their action units, `[N, 12]`, NaN where not annotated.

    Raises:
        UserError: There are no labels, or no labelled frame has a face in the store.
    """
    tracks = read_annotations(labels, AU, TRAIN, spans=store.spans())
    if not tracks:
        raise UserError(f"{labels} holds no labels of action units to train on")
    return join(store, AU, tracks, "training", labels, notes)


def join(
    store: FacesStore, task: Task, source: Mapping[str, LabelTrack], what: str, labels: Path, notes: list[str]
) -> LabelledFrames:
    """Rows of the store that have a picture and a label; `notes` gets a line about everything that is left out.

    `source` holds the task's labels by sequence id. Messages name `what` (training or validation) and where they came
    from.

    Raises:
        UserError: Nothing is left.
    """
    sequences = {sequence.id: sequence for sequence in store.sequences()}
    missing = [repr(id) for id in sorted(source.keys() - sequences.keys())]
    if missing and len(missing) == len(source):
        raise UserError(
            f"none of the {len(source)} {what} videos in {labels} is in {store.path}: labels name {some(missing, 3)}; "
            f"the store holds {some([*map(repr, sorted(sequences))], 3)}"
        )
    if missing:
        notes.append(f"{len(missing):,} of {len(source):,} {what} videos are not in the store: {some(missing, 3)}")
    rows, targets, ids = [], [], []
    labelled = without_face = beyond = 0
    for id in sorted(source.keys() & sequences.keys()):
        track, sequence = source[id], sequences[id]
        frames = np.flatnonzero(track.mask.any(1)) + 1
        labelled += len(frames)
        place = frames - sequence.first_frame
        inside = (place >= 0) & (place < sequence.length)
        beyond += int((~inside).sum())
        row = sequence.start + place[inside]
        seen = store.valid[row]
        without_face += int((~seen).sum())
        if seen.any():
            rows.append(row[seen])
            targets.append(track.targets(task)[frames[inside][seen] - 1])
            ids.append(id)
    if not labelled:
        raise UserError(f"every {what} label in {labels} is masked (-1) or left out: nothing to use")
    if not rows:
        raise UserError(f"none of the {labelled} labelled {what} frames in {labels} has a face in {store.path}")
    if without_face:
        notes.append(f"{without_face:,} of {labelled:,} labelled {what} frames have no face: left out")
    if beyond:
        notes.append(f"{beyond:,} of {labelled:,} labelled {what} frames have no row in the store: left out")
    bounds = np.cumsum([0, *(len(part) for part in rows)])
    return LabelledFrames(np.concatenate(rows).astype(np.int64), np.concatenate(targets), bounds, ids)
