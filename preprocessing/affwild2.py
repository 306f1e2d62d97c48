"""The tree of the Aff-Wild2 release: which videos it holds and which subjects its files name.

Names of folders, lists and file endings match in any letter case; ids, the names of videos and subjects, match exactly.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from checkpoints.errors import UserError
from checkpoints.reading import read_lines
from preprocessing.items import FRAME_BYTES, VIDEO_SUFFIXES, Item
from wildaffect.tasks.challenge import is_challenge_file, read_example
from wildaffect.tasks.folds import read_ids
from wildaffect.tasks.labels import (
    TRAIN,
    VALIDATION,
    annotation_folders,
    children,
    find_folder,
    find_mtl_file,
    subfolder,
)
from wildaffect.tasks.task import TASKS

CROP_FOLDERS = ("cropped_aligned", "cropped_aligned_new_50_vids", "cropped")
TEST_NAMES = "names_of_videos_in_each_test_set"
TEST_EXAMPLES = "test_set_examples"
_SUBJECT = re.compile(r"^(.+)_(left|right)$")

Doubts = list[tuple[str, str]]
"""What is left out or doubtful, relative to the root, and why."""


def split_id(name: str) -> tuple[str, str]:
    """Split a label file's stem into (video, subject): only `_left` and `_right` are removed."""
    found = _SUBJECT.match(name)
    return (found[1], found[2]) if found else (name, "")


def is_release(root: Path) -> bool:
    """Whether a folder is the root of a release: it has videos or crops, and annotations or test lists."""
    data = any(subfolder(root, name) for name in ("videos", *CROP_FOLDERS))
    return data and bool(
        any(subfolder(root, name) for name in (TEST_NAMES, TEST_EXAMPLES, "*abaw*annotations"))
        or any(_label_files(root))
        or any(_frame_lists(root))
    )


def _label_files(root: Path) -> Iterator[Path]:
    """The label files of all editions, each of one subject of a video."""
    tops = [*annotation_folders(root), root]
    folders = {find_folder(top, task, part) for top in tops for task in TASKS.values() for part in (TRAIN, VALIDATION)}
    for folder in sorted(filter(None, folders)):
        yield from children(folder, "*.txt")


def _frame_lists(root: Path) -> list[Path]:
    """The files that list frames of many videos: the MTL challenge's, and the examples of the test sets."""
    tops = [*annotation_folders(root), root]
    mtl = {find_mtl_file(top, part) for top in tops for part in (TRAIN, VALIDATION)}
    return [*sorted(filter(None, mtl)), *example_files(root)]


def example_files(root: Path) -> list[Path]:
    """The files that list the frames of the test sets."""
    folders = [subfolder(root, name) for name in (TEST_EXAMPLES, TEST_NAMES)]
    return [path for folder in folders for path in children(folder, "*.txt") if is_challenge_file(path)]


def names_for_testing(root: Path, pattern: str = "*") -> list[str]:
    """The ids in the lists of test videos whose file names match a pattern."""
    lists = [path for path in children(subfolder(root, TEST_NAMES), f"{pattern}.txt") if not is_challenge_file(path)]
    return [id for path in lists for id in read_ids(path)]


def listed_frames(root: Path) -> dict[tuple[str, str], int]:
    """(video, subject) -> its last frame in the annotations, test lists and example files; 0 where only named.

    Raises:
        UserError: A line of a list cannot be read.
    """
    last: dict[tuple[str, str], int] = dict.fromkeys(map(split_id, names_for_testing(root)), 0)

    def note(id: str, frame: int) -> None:
        last[split_id(id)] = max(last.get(split_id(id), 0), frame)

    for path in _label_files(root):
        note(path.stem, len(read_lines(path)) - 1)
    for path in _frame_lists(root):
        example = read_example(path)
        for id in example.ids:
            note(id, example.last_frame(id))
    return last


def find_videos(root: Path, doubts: Doubts) -> dict[str, Path]:
    """The videos of a release by id. Of several files with one id, the largest is taken, and the others are doubts."""
    folder = subfolder(root, "videos")
    paths = sorted(folder.rglob("*")) if folder else []
    files = [(path.stem, path.stat().st_size, path) for path in paths if _is_video(path)]
    return largest(root, files, doubts)


def _is_video(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def crop_folders(root: Path) -> list[Path]:
    """The folders of aligned crops if there are any, otherwise those of the loose ones."""
    aligned = [*filter(None, (subfolder(root, name) for name in CROP_FOLDERS[:2]))]
    tops = aligned or [*filter(None, [subfolder(root, CROP_FOLDERS[2])])]
    return [path for top in tops for path in sorted(top.iterdir()) if path.is_dir()]


def find_crops(root: Path, doubts: Doubts) -> dict[str, tuple[Path, int]]:
    """The crops of a release by id: their folder, and the number of files in it.

    Of several folders with one id, the one with most files is taken, and the others are doubts.
    """
    counts = {path: sum(1 for _ in os.scandir(path)) for path in crop_folders(root)}
    chosen = largest(root, [(path.name, count, path) for path, count in counts.items()], doubts)
    return {id: (path, counts[path]) for id, path in chosen.items()}


def largest(root: Path, candidates: list[tuple[str, int, Path]], doubts: Doubts) -> dict[str, Path]:
    """The largest of the (id, size, path) with one id; of equal ones the first."""
    chosen: dict[str, Path] = {}
    for id, _, path in sorted(candidates, key=lambda candidate: -candidate[1]):
        taken = chosen.setdefault(id, path)
        if taken != path:
            why = f"is left out: {taken.relative_to(root).as_posix()} has the same name and is no smaller"
            doubts.append((path.relative_to(root).as_posix(), why))
    return chosen


def note_letter_case(root: Path, listed: Iterable[str], found: Mapping[str, Path], doubts: Doubts) -> None:
    """Add to the doubts what differs from a listed id without a file in letter case alone."""
    folded = {id.lower(): path for id, path in found.items()}
    for id in sorted({*listed} - found.keys()):
        if path := folded.get(id.lower()):
            why = f"is not the listed {id}: ids match in letter case too; rename one of them"
            doubts.append((path.relative_to(root).as_posix(), why))


def release_items(root: Path, doubts: Doubts, *, crops: bool) -> Iterator[Item]:
    """The videos of a release, or with `crops` its folders of cropped faces; names are relative to the root.

    What is listed and not there is an item too, with a path that does not exist. What is left out is added to `doubts`.

    Raises:
        UserError: There are no videos, or with `crops` no crops.
    """
    listed = listed_frames(root)
    lengths: dict[str, int] = {}
    for (video, _), frame in listed.items():
        lengths[video] = max(lengths.get(video, 0), frame)
    videos = find_videos(root, doubts)
    folders = find_crops(root, doubts) if crops else {}
    if not (folders if crops else videos):
        there, other = ("crops", "leave out --crops") if crops else ("videos", "pass --crops")
        raise UserError(f"--source {root} has no {there}: unpack them into it, or {other}")
    if crops:
        ids = [f"{video}_{subject}" if subject else video for video, subject in listed]
        note_letter_case(root, ids, {id: path for id, (path, _) in folders.items()}, doubts)
        place = next(iter(folders.values()))[0].parent
        for video, subject in sorted({*listed, *map(split_id, folders)}):
            id = f"{video}_{subject}" if subject else video
            path, count = folders.get(id, (place / id, 0))
            name, size = path.relative_to(root).as_posix(), FRAME_BYTES * count
            yield Item(video, path, name, "frames", size, (subject,), lengths.get(video, 0), videos.get(video))
        return
    note_letter_case(root, lengths, videos, doubts)
    named = {*listed, *(split_id(path.name) for path in crop_folders(root))}
    for video in sorted({*videos, *lengths}):
        path = videos.get(video, root / "videos" / video)
        subjects = tuple(sorted(subject for of, subject in named if of == video)) or ("",)
        size = path.stat().st_size if path.exists() else 0
        yield Item(video, path, path.relative_to(root).as_posix(), "video", size, subjects, lengths.get(video, 0))
