"""What the files of a folder are, found out by asking the decoders, and which pictures are the frames of one video."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from checkpoints.errors import UserError
from preprocessing.faces import PICTURE_SUFFIXES
from preprocessing.items import TABLE_SUFFIXES, VIDEO_SUFFIXES
from preprocessing.pictures import animated, picture_kind, read_picture
from preprocessing.video import holds_video

Kind = Literal["video", "picture", "table", "text", "unknown"]

LITTER = {"thumbs.db", "desktop.ini", "ehthumbs.db"}
NUMBERED = re.compile(r"(.*?)(\d+)", re.ASCII)
LOOKS = 8
"""Pairs of neighbouring pictures to compare."""
ALIKE = 0.9
"""Least correlation of neighbouring frames, for the median pair."""


def kind_of(path: Path) -> Kind:
    """What a file holds.

    A file with a usual ending is taken at its word, and is a problem later if it cannot be read; for any other ending
    the decoders are asked. `text` is what lies beside media: notes, lists and the like.
    """
    suffix = path.suffix.lower()
    if suffix in TABLE_SUFFIXES:
        return "table"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    if suffix in PICTURE_SUFFIXES:
        return "video" if animated(path) else "picture"
    return _decoded_kind(path) if path.exists() else "unknown"


def _decoded_kind(path: Path) -> Kind:
    if path.name.lower() in LITTER or _is_text(path):
        return "text"
    return picture_kind(path) or ("video" if holds_video(path) else "unknown")


def _is_text(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError:
        return False
    try:
        text = start.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # not only the last character, cut in the middle
            return False
        text = start[: error.start].decode("utf-8-sig")
    return bool(text) and "\0" not in text and not text.startswith("YUV4MPEG2")


def numbered_files(pictures: Iterable[Path]) -> dict[int, Path]:
    """Pictures by the number at the end of their names; empty unless all are numbered in one way.

    `1.jpg` ... `12.jpg`, `0001.png`, `frame_0001.JPG` and `9999.jpg`, `10000.jpg` are such ways.
    """
    paths = list(pictures)
    found = [NUMBERED.fullmatch(path.stem) for path in paths]
    if not paths or not all(found) or len({match[1] for match in found if match}) > 1:
        return {}
    digits = [match[2] for match in found if match]
    width = min(map(len, digits))
    numbers = [int(text) for text in digits]
    as_written = all(text == f"{number:0{width}d}" for text, number in zip(digits, numbers, strict=True))
    return dict(zip(numbers, paths, strict=True)) if as_written and len(set(numbers)) == len(numbers) else {}


def are_frames(pictures: Sequence[Path]) -> tuple[bool, str]:
    """Whether the pictures of a folder are the frames of one video.

    Numbers of four or more digits and nothing else (`00001.jpg`) are frames, with gaps where there is no face. Any
    other numbering may be that of a collection: it must be without gaps, and neighbouring pictures must look alike.

    Returns:
        Whether they are, and if it is doubtful, why not.
    """
    files = numbered_files(pictures)
    if not files:
        return False, ""
    stems = [path.stem for path in files.values()]
    if all(stem.isdigit() and len(stem) >= 4 for stem in stems):
        return True, ""
    if len(files) < 3 or max(files) - min(files) + 1 != len(files):
        return False, ""
    ordered = [files[number] for number in sorted(files)]
    pairs = list(pairwise(ordered))
    chosen = [pairs[i] for i in np.unique(np.linspace(0, len(pairs) - 1, min(LOOKS, len(pairs))).astype(int))]
    alike: list[float] = []
    for pair in chosen:
        try:
            a, b = (read_picture(path) for path in pair)
        except UserError:
            continue
        alike.append(_likeness(a, b))
    if alike and float(np.median(alike)) >= ALIKE:
        return True, ""
    return False, (
        "its pictures are numbered without gaps but do not look like the frames of one video: each is read by itself; "
        "number them 00001, 00002, ... if they are frames"
    )


def _likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two pictures in small; 0 if they differ in size."""
    if a.shape != b.shape:
        return 0.0
    x, y = (cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float64) for image in (a, b))
    x, y = x - x.mean((0, 1)), y - y.mean((0, 1))
    flat = 1e3  # two plain pictures are alike
    return float(((x * y).sum() + flat) / (np.linalg.norm(x) * np.linalg.norm(y) + flat))
