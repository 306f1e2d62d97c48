"""Examines an Aff-Wild2 release: what it holds, what does not fit together, and what leaks between splits."""

import csv
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from audit.findings import Audit, Split
from audit.leakage import TEST, find_leaks
from audit.lines import read_labels, read_mtl_labels
from checkpoints.artifact import fingerprint, read_json
from checkpoints.errors import UserError, some
from preprocessing.affwild2 import CROP_FOLDERS, is_release, split_id
from preprocessing.faces import FacesStore
from preprocessing.items import VIDEO_SUFFIXES
from preprocessing.video import count_frames
from wildaffect.report.bar import progress_bar
from wildaffect.tasks.challenge import read_example
from wildaffect.tasks.folds import group_of
from wildaffect.tasks.labels import TRAIN, VALIDATION, find_folder, find_mtl_file, is_synthetic, read_lines
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
TEST_FILES = {"va": "Valence_Arousal", "expr": "Expression", "au": "Action_Unit"}
EXAMPLES = {"va": "_VA_", "expr": "_Expr_", "au": "_AU_"}


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
    videos = {p.stem: p for p in sorted((root / "videos").rglob("*")) if p.suffix.lower() in VIDEO_SUFFIXES}
    found.videos = len(videos)
    found.frames = _frames(videos, faces, found.problems)
    crops = _crops(root, found)
    bad_lines = found.bad_lines if skip_bad else None
    members: dict[tuple[str, str], list[str]] = {}
    for task in TASKS.values():
        for split in (TRAIN, VALIDATION, TEST):
            if split == TEST:
                frames, entry = _test_split(root, task)
            else:
                frames, entry = _labelled_split(root, task, split, bad_lines)
            if not frames:
                continue
            members[task.name, split] = list(frames)
            _compare(entry, f"{task.name} {split}", frames, found, crops, videos.keys())
            entry.recordings = len({group_of(id) for id in frames})
            if not found.synthetic:
                _compare_published(entry, PUBLISHED[task.name, split], f"{task.name} {split}", found.problems)
            found.splits[f"{task.name} {split}"] = entry
    _mtl(root, found, bad_lines)
    found.leaks = find_leaks(members, known_people(identities, root))
    unused = videos.keys() - {split_id(id)[0] for ids in members.values() for id in ids}
    if unused and members:
        found.problems.append(f"{len(unused)} videos are in no split: {some(sorted(unused), 6)}")
    return found


def _frames(videos: dict[str, Path], faces: Path | None, problems: list[str]) -> dict[str, int]:
    """Number of frames of each video, from a faces store or by decoding."""
    if faces:
        frames: dict[str, int] = {}
        for sequence in FacesStore(faces).sequences():
            last = sequence.first_frame + sequence.length - 1
            frames[sequence.video] = max(frames.get(sequence.video, 0), last)
        return {name: frames[name] for name in videos if name in frames}
    # Decoding releases the GIL, so threads can share the work.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = list(progress_bar(pool.map(_count, videos.values()), total=len(videos), desc="decoding", unit="video"))
    problems += [f"video {name}: {text}" for name, (_, texts) in zip(videos, counts, strict=True) for text in texts]
    return {name: count for name, (count, _) in zip(videos, counts, strict=True) if count}


def _count(path: Path) -> tuple[int, list[str]]:
    """Number of frames of a video, and what is wrong with it."""
    problems: list[str] = []
    try:
        return count_frames(path, problems.append), problems
    except UserError as error:
        return 0, [str(error)]


def _crops(root: Path, found: Audit) -> dict[str, set[int]]:
    """Frame numbers of the crops by id, from the aligned folders if there are any."""
    numbers: dict[str, set[int]] = {}
    for name in CROP_FOLDERS:
        if not (root / name).is_dir():
            continue
        by_id: dict[str, set[int]] = {}
        for folder in sorted(p for p in (root / name).iterdir() if p.is_dir()):
            by_id[folder.name] = {int(p.name.split(".")[0]) for p in os.scandir(folder) if p.name[:1].isdigit()}
        found.crops[name] = {id: len(frames) for id, frames in by_id.items()}
        beyond = {}
        for id, frames in by_id.items():
            last = found.frames.get(split_id(id)[0])
            if last is not None and (count := sum(frame > last or frame < 1 for frame in frames)):
                beyond[id] = count
        found.crops_beyond[name] = beyond
        if name != CROP_FOLDERS[-1] or not numbers:
            numbers.update(by_id)
    return numbers


def _labelled_split(
    root: Path, task: Task, split: str, bad_lines: list[str] | None
) -> tuple[dict[str, np.ndarray], Split]:
    """Which lines of each id are annotated, bool [T], and what the split holds."""
    folder = find_folder(root, task, split)
    paths = sorted(folder.glob("*.txt")) if folder else []
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
    columns = task.columns if task.name != "expr" else ("expression",)
    entry.elements = {column: int(number) for column, number in zip(columns, elements, strict=True)}
    entry.counts = counts
    entry.checksum = fingerprint(paths) if paths else ""
    return frames, entry


def _test_split(root: Path, task: Task) -> tuple[dict[str, np.ndarray], Split]:
    """Which frames of each id of the test split the example file lists, bool [T], and what the split holds."""
    frames = {name: np.zeros(0, bool) for name in listed_for_testing(root, task)}
    entry = Split(len(frames))
    for path in sorted((root / "test_set_examples").glob(f"*{EXAMPLES[task.name]}*.txt")):
        example = read_example(path)
        entry.lines = entry.annotated = len(example.locations)
        for id in example.ids:
            listed = np.zeros(example.last_frame(id), bool)
            listed[example.frames[id] - 1] = True
            frames[id] = listed
    entry.files = len(frames)
    return frames, entry


def listed_for_testing(root: Path, task: Task) -> list[str]:
    """Ids of a task's test split, from the release's lists of names."""
    lists = sorted((root / "names_of_videos_in_each_test_set").glob(f"{TEST_FILES[task.name]}*.txt"))
    names = [line.strip() for path in lists for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted(name for name in names if name)


def _compare_published(entry: Split, published: tuple[int, int], name: str, problems: list[str]) -> None:
    """Compare a split's counts with the published ones."""
    entry.published = published
    counts = {"files": entry.files, "annotated frames": entry.annotated}
    for (what, count), known in zip(counts.items(), published, strict=True):
        if count != known:
            problems.append(f"{name}: {count:,} {what}; published for the 6th ABAW: {known:,}")


def _compare(
    entry: Split,
    key: str,
    frames: dict[str, np.ndarray],
    found: Audit,
    crops: dict[str, set[int]],
    videos: Collection[str],
) -> None:
    """Compare a split's frames with the videos and the crops."""
    entry.without_video = sorted(id for id in frames if videos and split_id(id)[0] not in videos)
    found.difference[key] = {}
    beyond = 0
    for id, annotated in frames.items():
        count = found.frames.get(split_id(id)[0])
        if count is None or not len(annotated):
            continue
        difference = len(annotated) - count
        spelt = f"{difference:+d}" if difference else "0"
        entry.difference[spelt] = entry.difference.get(spelt, 0) + 1
        if difference:
            found.difference[key][id] = difference
        beyond += int(annotated[count:].sum())
    entry.beyond = beyond if found.frames else None
    if crops:
        entry.without_crop = sum(
            int(annotated.sum())
            - sum(1 for frame in crops.get(id, ()) if 1 <= frame <= len(annotated) and annotated[frame - 1])
            for id, annotated in frames.items()
        )


def _mtl(root: Path, found: Audit, bad_lines: list[str] | None) -> None:
    """Add the static frames of the MTL challenge, if the release has them."""
    for split in (TRAIN, VALIDATION):
        path = next((p for top in root.glob("*Annotations") if (p := find_mtl_file(top, split))), None)
        if path is None:
            continue
        by_task = read_mtl_labels(path, bad_lines)
        for task in TASKS.values():
            tracks = by_task[task.name]
            annotated = int(sum(track.mask.any(1).sum() for track in tracks.values()))
            lines = len(read_lines(path)) - 1
            entry = Split(
                len(tracks), len({group_of(id) for id in tracks}), lines, annotated, checksum=fingerprint([path])
            )
            found.splits[f"mtl/{task.name} {split}"] = entry


def known_people(table: Path | None, root: Path) -> dict[str, str]:
    """Person by id, from the user's CSV or the header of a SynthWild corpus.

    Raises:
        UserError: The file cannot be read or lacks a column.
    """
    if table:
        try:
            with table.open(encoding="utf-8-sig", newline="") as file:
                return {row["id"]: row["identity"] for row in csv.DictReader(file)}
        except (OSError, KeyError) as error:
            raise UserError(f"--identities {table}: expected columns id and identity: {error}") from None
    corpus = root.resolve().parent / "synthwild.json"
    if corpus.is_file():
        videos = read_json(corpus)["videos"].values()
        return {id: subject["identity"] for video in videos for id, subject in video["subjects"].items()}
    return {}
