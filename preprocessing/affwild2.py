"""The tree of the Aff-Wild2 release: which videos it holds and which subjects its files name."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from checkpoints.reading import visible
from preprocessing.items import FRAME_BYTES, VIDEO_SUFFIXES, Item
from wildaffect.tasks.folds import read_ids

CROP_FOLDERS = ("cropped_aligned", "cropped_aligned_new_50_vids", "cropped")
_SUBJECT = re.compile(r"^(.+)_(left|right)$")


def split_id(name: str) -> tuple[str, str]:
    """Split a label file's stem into (video, subject): only `_left` and `_right` are removed."""
    found = _SUBJECT.match(name)
    return (found[1], found[2]) if found else (name, "")


def is_release(root: Path) -> bool:
    """Whether a folder is the root of a release: it has videos or crops, and annotations or test lists."""
    children = {child.name for child in root.iterdir() if child.is_dir()}
    data = children & {"videos", *CROP_FOLDERS}
    return bool(data) and (
        any(name.endswith("Annotations") for name in children) or "names_of_videos_in_each_test_set" in children
    )


def named_subjects(root: Path) -> dict[str, set[str]]:
    """The subjects of each video that annotations, test lists or crop folders name."""
    ids: set[str] = set()
    for folder in root.glob("*Annotations"):
        ids.update(path.stem for path in visible(folder.rglob("*.txt")) if path.parent.name.lower().endswith("_set"))
    for names in visible((root / "names_of_videos_in_each_test_set").glob("*.txt")):
        ids.update(read_ids(names))
    for crops in CROP_FOLDERS:
        if (root / crops).is_dir():
            ids.update(path.name for path in visible((root / crops).iterdir()) if path.is_dir())
    subjects: dict[str, set[str]] = defaultdict(set)
    for id_ in ids - {"", "train_set", "validation_set"}:  # the two MTL files are not named after a video
        video, subject = split_id(id_)
        subjects[video].add(subject)
    return subjects


def release_items(root: Path, *, crops: bool) -> Iterator[Item]:
    """The videos of a release, or with `crops` its folders of cropped faces; names are relative to the root."""
    subjects = named_subjects(root)
    if crops:
        yield from _crop_folders(root)
        return
    for path in visible((root / "videos").rglob("*")):
        if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
            named = tuple(sorted(subjects.get(path.stem, {""})))
            name = path.relative_to(root).as_posix()
            yield Item(path.stem, path, name, "video", path.stat().st_size, subjects=named)


def _crop_folders(root: Path) -> Iterator[Item]:
    """The aligned crops if there are any, otherwise the loose ones."""
    clocks = {
        path.stem: path for path in visible((root / "videos").rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES
    }
    folders = [root / name for name in CROP_FOLDERS[:2] if (root / name).is_dir()] or [root / CROP_FOLDERS[2]]
    for folder in folders:
        for path in (p for p in visible(folder.iterdir()) if p.is_dir()):
            video, subject = split_id(path.name)
            count = sum(1 for _ in os.scandir(path))
            name = path.relative_to(root).as_posix()
            yield Item(video, path, name, "frames", FRAME_BYTES * count, (subject,), clocks.get(video))
