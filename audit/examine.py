"""Examines an Aff-Wild2 release: what it holds, what does not fit together, and what leaks between splits."""

import os
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from audit.findings import Audit, Split
from audit.leakage import TEST, find_leaks
from audit.lines import read_labels, read_mtl_labels
from checkpoints.artifact import fingerprint, read_sealed
from checkpoints.cores import usable_cores
from checkpoints.decimals import WHOLE
from checkpoints.errors import UserError, some
from checkpoints.reading import read_csv, read_lines, shown
from preprocessing.affwild2 import (
    CROP_FOLDERS,
    Doubts,
    crop_folders,
    example_files,
    find_videos,
    is_release,
    largest,
    names_for_testing,
    note_letter_case,
    split_id,
)
from preprocessing.faces import FacesStore
from preprocessing.video import count_frames
from wildaffect.report.bar import progress_bar
from wildaffect.tasks.challenge import form_of, read_example
from wildaffect.tasks.folds import group_of
from wildaffect.tasks.labels import (
    TRAIN,
    VALIDATION,
    children,
    find_folder,
    find_mtl_file,
    is_synthetic,
    subfolder,
)
from wildaffect.tasks.task import TASKS, Task

# Number of label files, and of annotated frames (train and validation) or listed frames (test), in the 6th ABAW, as
# published by teams that had it.
PUBLISHED: dict[tuple[str, str], tuple[int, int]] = {
    ("va", TRAIN): (356, 1_679_857),
    ("va", VALIDATION): (76, 382_021),
    ("va", TEST): (162, 927_210),
    ("expr", TRAIN): (248, 597_361),
    ("expr", VALIDATION): (70, 284_230),
    ("expr", TEST): (228, 1_022_655),
    ("au", TRAIN): (295, 1_359_523),
    ("au", VALIDATION): (105, 445_845),
    ("au", TEST): (141, 729_736),
}
TEST_FILES = {"va": "VA*", "expr": "Expr*", "au": "A*U*", "mtl": "M*T*L*"}
"""How the names of the lists of test videos begin."""

NUMBERED = rf"(?s)^{WHOLE}(?:\..*)?$"
"""Names of files that begin with a frame number, in bytes."""


class Subject(TypedDict):
    """A subject, in the header of a SynthWild corpus."""

    identity: str


class Video(TypedDict):
    """A video, in the header of a SynthWild corpus."""

    subjects: dict[str, Subject]


class Corpus(TypedDict):
    """What is read of the header of a SynthWild corpus."""

    videos: dict[str, Video]


def examine(root: Path, *, faces: Path | None = None, identities: Path | None = None, skip_bad: bool = False) -> Audit:
    """Examine a release.

    Args:
        root: Root of the release.
        faces: A faces store of its videos, whose frame counts are used instead of decoding every video.
        identities: CSV with the columns id and identity.
        skip_bad: List malformed lines of annotations and skip them.

    Raises:
        UserError: It is not a release, or a line of its annotations is malformed.
    """
    if not root.is_dir():
        raise UserError(f"--affwild2 {root} does not exist")
    if not is_release(root):
        raise UserError(
            f"--affwild2 {root} is not an Aff-Wild2 release: expected annotations, and videos or {CROP_FOLDERS[0]}"
        )
    found = Audit(synthetic=is_synthetic(root))
    store = FacesStore(faces) if faces else None
    doubts: Doubts = []
    videos = find_videos(root, doubts)
    found.videos = len(videos)
    found.frames = _frames(videos, store, found.problems)
    crops = _crops(root, found, doubts)
    bad_lines = found.bad_lines if skip_bad else None
    members: dict[tuple[str, str], list[str]] = {}
    for task in TASKS.values():
        for split in (TRAIN, VALIDATION, TEST):
            if split == TEST:
                frames, entry = _test_split(root, task.name)
            else:
                frames, entry = _labelled_split(root, task, split, bad_lines)
            if not frames:
                continue
            members[task.name, split] = list(frames)
            _add(entry, f"{task.name} {split}", frames, found, crops, videos.keys(), dense=True)
            if not found.synthetic:
                _compare_published(entry, PUBLISHED[task.name, split], f"{task.name} {split}", found.problems)
    for name, split, frames, entry in _mtl(root, bad_lines):
        _add(entry, f"{name} {split}", frames, found, crops, videos.keys(), dense=False)
        members["mtl", split] = sorted({*members.get(("mtl", split), ()), *frames})
    listed = {id for ids in members.values() for id in ids}
    found.leaks = find_leaks(members, known_people(identities, root, listed))
    if store or crops:
        found.never_found = sorted(listed - (_seen(store) if store else {id for id in crops if len(crops[id])}))
    note_letter_case(root, {split_id(id)[0] for id in listed}, videos, doubts)
    found.problems += [f"{place} {why}" for place, why in doubts]
    unused = videos.keys() - {split_id(id)[0] for id in listed}
    if unused and members:
        found.problems.append(f"{len(unused)} videos are in no split: {some(sorted(unused), 6)}")
    return found


def _frames(videos: dict[str, Path], store: FacesStore | None, problems: list[str]) -> dict[str, int]:
    """Number of frames of each video, from a faces store where it has their clock, or by decoding."""
    frames: dict[str, int] = {}
    if store:
        for sequence in store.sequences():
            times = store.time_s[sequence.start : sequence.start + sequence.length]
            # A second person's rows end with the last face, and crops without a clock with the last crop.
            if sequence.video in videos and not sequence.subject and np.isfinite(times).all():
                frames[sequence.video] = sequence.length
    left = {name: path for name, path in videos.items() if name not in frames}
    # Decoding releases the GIL, so threads can share the work.
    with ThreadPoolExecutor(usable_cores()) as pool:
        counts = list(progress_bar(pool.map(_count, left.values()), total=len(left), desc="decoding", unit="video"))
    problems += [f"video {name}: {text}" for name, (_, texts) in zip(left, counts, strict=True) for text in texts]
    return frames | {name: count for name, (count, _) in zip(left, counts, strict=True) if count}


def _seen(store: FacesStore) -> set[str]:
    """Ids with a face in any frame."""
    return {s.id for s in store.sequences() if store.valid[s.start : s.start + s.length].any()}


def _count(path: Path) -> tuple[int, list[str]]:
    """Number of frames of a video, and what is wrong with it."""
    problems: list[str] = []
    try:
        return count_frames(path, problems.append), problems
    except UserError as error:
        return 0, [str(error)]


def _crops(root: Path, found: Audit, doubts: Doubts) -> dict[str, np.ndarray]:
    """Frame numbers of the crops by id, from the aligned folders if there are any."""
    numbers: dict[Path, np.ndarray] = {}
    sizes: dict[Path, int] = {}
    for name in CROP_FOLDERS:
        top = subfolder(root, name)
        if top is None:
            continue
        beyond = {}
        folders = sorted(path for path in top.iterdir() if path.is_dir())
        for folder in folders:
            files = [entry.name for entry in os.scandir(os.fsencode(folder))]
            sizes[folder] = len(files)
            numbers[folder] = _numbers(files)
            last = found.frames.get(split_id(folder.name)[0])
            if last is not None and (count := int(((numbers[folder] > last) | (numbers[folder] < 1)).sum())):
                beyond[folder.name] = count
        found.crops[name] = {folder.name: len(numbers[folder]) for folder in folders}
        found.crops_beyond[name] = beyond
    chosen = largest(root, [(path.name, sizes[path], path) for path in crop_folders(root)], doubts)
    return {id: numbers[folder] for id, folder in chosen.items()}


def _numbers(files: list[bytes]) -> np.ndarray:
    """The different frame numbers that names of crops begin with; names without one are passed over."""
    numbers = pc.extract_regex(pa.array(files, pa.binary()), NUMBERED).drop_null().field("number")
    return np.unique(numbers.cast(pa.string()).cast(pa.int64()).to_numpy())


def _labelled_split(
    root: Path, task: Task, split: str, bad_lines: list[str] | None
) -> tuple[dict[str, np.ndarray], Split]:
    """Which lines of each id are annotated, bool [T], and what the split holds."""
    folder = find_folder(root, task, split)
    paths = children(folder, "*.txt")
    frames: dict[str, np.ndarray] = {}
    entry = Split(len(paths))
    elements = np.zeros(task.label_width, int)
    counts: dict[str, int] = dict.fromkeys(task.columns, 0) if task.name != "va" else {}
    for path in paths:
        labels, mask = read_labels(path, task, bad_lines)
        frames[path.stem] = np.asarray(mask.any(axis=1))
        elements += mask.sum(0)
        if task.name == "expr":
            for value, number in zip(*np.unique(labels[mask], return_counts=True), strict=True):
                counts[task.columns[int(value)]] += int(number)
        elif task.name == "au":
            for column, number in zip(task.columns, ((labels == 1) & mask).sum(0), strict=True):
                counts[column] += int(number)
    entry.lines = sum(len(annotated) for annotated in frames.values())
    entry.annotated = int(sum(annotated.sum() for annotated in frames.values()))
    entry.elements = {column: int(number) for column, number in zip(task.label_columns, elements, strict=True)}
    entry.counts = counts
    entry.checksum = fingerprint(paths) if paths else ""
    return frames, entry


def _test_split(root: Path, form: str) -> tuple[dict[str, np.ndarray], Split]:
    """Which frames of each id of a challenge's test split are listed, bool [T], and what the split holds."""
    frames = {name: np.zeros(0, bool) for name in names_for_testing(root, TEST_FILES[form])}
    entry = Split()
    for path in example_files(root):
        if form_of(path) != form:
            continue
        example = read_example(path)
        entry.lines = entry.annotated = len(example.locations)
        for id in example.ids:
            listed = np.zeros(example.last_frame(id), bool)
            listed[example.frames[id] - 1] = True
            frames[id] = listed
    entry.files = len(frames)
    return frames, entry


def listed_for_testing(root: Path, form: str) -> list[str]:
    """Ids of a challenge's test split."""
    return sorted(_test_split(root, form)[0])


def _compare_published(entry: Split, published: tuple[int, int], name: str, problems: list[str]) -> None:
    """Compare a split's counts with the published ones."""
    entry.published = published
    counts = {"files": entry.files, "annotated frames": entry.annotated}
    for (what, count), known in zip(counts.items(), published, strict=True):
        if count != known:
            problems.append(f"{name}: {count:,} {what}; published for the 6th ABAW: {known:,}")


def _add(
    entry: Split,
    key: str,
    frames: dict[str, np.ndarray],
    found: Audit,
    crops: dict[str, np.ndarray],
    videos: Collection[str],
    *,
    dense: bool,
) -> None:
    """Compare a split's frames with the videos and the crops, and add it. `dense`: it should have every frame."""
    found.splits[key] = entry
    entry.recordings = len({group_of(id) for id in frames})
    entry.without_video = sorted(id for id in frames if videos and split_id(id)[0] not in videos)
    found.difference[key] = {}
    beyond = 0
    for id, annotated in frames.items():
        count = found.frames.get(split_id(id)[0])
        if count is None or not len(annotated):
            continue
        beyond += int(annotated[count:].sum())
        difference = len(annotated) - count
        if dense:
            spelt = f"{difference:+d}" if difference else "0"
            entry.difference[spelt] = entry.difference.get(spelt, 0) + 1
        if dense and difference:
            found.difference[key][id] = difference
    entry.beyond = beyond if found.frames else None
    if crops:
        entry.without_crop = sum(
            len(np.setdiff1d(np.flatnonzero(annotated) + 1, crops.get(id, ()), assume_unique=True))
            for id, annotated in frames.items()
        )


def _mtl(root: Path, bad_lines: list[str] | None) -> Iterator[tuple[str, str, dict[str, np.ndarray], Split]]:
    """The MTL challenge's static frames, by task: name, split, which frames of each id, and what the split holds."""
    for split in (TRAIN, VALIDATION):
        path = find_mtl_file(root, split)
        if path is None:
            continue
        for name, tracks in read_mtl_labels(path, bad_lines).items():
            frames = {id: np.asarray(track.mask.any(1)) for id, track in tracks.items()}
            annotated = int(sum(listed.sum() for listed in frames.values()))
            lines = len(read_lines(path)) - 1
            yield f"mtl/{name}", split, frames, Split(len(tracks), 0, lines, annotated, checksum=fingerprint([path]))
    frames, entry = _test_split(root, "mtl")
    if frames:
        yield "mtl", TEST, frames, entry


def known_people(table: Path | None, root: Path, ids: Collection[str]) -> dict[str, str]:
    """Person by id, from the user's CSV or the header of a SynthWild corpus.

    Args:
        table: CSV with the columns id and identity.
        root: The release.
        ids: Those of the release's splits.

    Raises:
        UserError: The file cannot be read, lacks a column, or names what is not in the release.
    """
    if table:
        names, rows = read_csv(table)
        if not {"id", "identity"} <= set(names):
            raise UserError(
                f"--identities {table}: expected columns id and identity, found {some([*map(shown, names)], 6)}"
            )
        people = {row[names.index("id")].strip(): row[names.index("identity")].strip() for row in rows}
        if unknown := sorted(people.keys() - set(ids)):
            raise UserError(
                f"--identities {table}: {len(unknown)} ids are in no split: {some([*map(shown, unknown)], 3)}"
            )
        if len(people) < len(rows) or "" in people.values():
            raise UserError(f"--identities {table}: an id is listed twice, or has no identity")
        return people
    corpus = root.resolve().parent / "synthwild.json"
    if corpus.is_file():
        videos = read_sealed(corpus, Corpus)["videos"].values()
        return {id: subject["identity"] for video in videos for id, subject in video["subjects"].items()}
    return {}
