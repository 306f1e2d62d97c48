"""How the pictures of a faces store are framed: as the user says, as they were aligned, or as the detector measures."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from checkpoints.errors import UserError
from checkpoints.framing import NAMED, OURS, TO_MEASURE, UNKNOWN, Framing
from preprocessing.align import decode_jpeg
from preprocessing.close_up import widen
from preprocessing.detect import Detector
from preprocessing.faces import DATA, have_pictures, pictures_by_group, read_jpegs, read_store_header

SAMPLE = 64
"""Number of pictures that are measured."""
SIDE = 192
"""Smaller pictures are enlarged to this side, so that faces have 96 pixels or more."""
CERTAIN = 0.9
"""Lowest score of a face that is measured."""


def chosen_framing(name: str, *, crops: bool) -> Framing:
    """The framing that `--framing` names, or `TO_MEASURE`.

    Args:
        name: `auto`, the name of a framing, or the path of a faces store that has it.
        crops: The sources hold faces that are already aligned.

    Raises:
        UserError: There is no such framing, or faces cannot be aligned to it.
    """
    if name == "auto":
        return TO_MEASURE if crops else OURS
    if name in NAMED:
        framing = NAMED[name]
    elif Path(name).is_dir():
        framing = Framing.from_dict(read_store_header(Path(name))["framing"])
    else:
        raise UserError(f"--framing {name}: expected auto, {', '.join(NAMED)} or the path of a faces store")
    if not crops and not framing.is_known:
        raise UserError(f"--framing {name}: faces cannot be aligned to an unknown framing")
    return framing


def measure_framing(store: Path, load_detector: Callable[[], Detector] | None) -> Framing:
    """Measure where the landmarks lie in the ready crops of a store; if that fails, print a warning.

    Args:
        store: A store whose shards are written.
        load_detector: Loads the detector; None if it is not installed.
    """
    pictures = sample_pictures(store)
    reason = "the face detector is not installed"
    if load_detector is not None:
        points = landmark_shares(pictures, load_detector())
        if len(points) and len(points) >= len(pictures) / 2:
            return Framing.of_points(np.median(points, axis=0))
        reason = f"the detector found one face in only {len(points)} of {len(pictures)} pictures"
    if pictures:
        print(
            f"warning: it is not known how the faces of {store} are framed ({reason}), so that inference cannot frame "
            f"faces in the same way: if you know it, run the same command with --framing {' or '.join(NAMED)}, or with "
            "the path of a faces store that is framed alike",
            flush=True,
        )
    return UNKNOWN


def sample_pictures(store: Path) -> list[np.ndarray]:
    """At most `SAMPLE` pictures at even distances, RGB, uint8 [H, W, 3]."""
    shards = sorted((store / DATA).glob("*.parquet"))
    ends = np.cumsum([sum(pictures_by_group(pq.read_metadata(path))) for path in shards])
    count = int(ends[-1]) if shards else 0
    chosen = np.unique(np.linspace(0, count - 1, SAMPLE).round().astype(int)) if count else np.zeros(0, int)
    places: list[tuple[Path, int]] = []
    for shard, numbers in groupby(chosen, key=lambda number: int(np.searchsorted(ends, number, side="right"))):
        rows = np.flatnonzero(have_pictures(shards[shard]))  # counted from the shard's end, where `ends` stands
        places += [(shards[shard], int(rows[number - ends[shard]])) for number in numbers]
    return [decode_jpeg(jpeg) for jpeg in read_jpegs(places)]


def landmark_shares(pictures: list[np.ndarray], detector: Detector) -> np.ndarray:
    """Landmarks of the pictures with exactly one certain face, as shares of the picture's side `[n, 5, 2]`."""
    found = []
    wide = [widen(picture, SIDE) for picture in pictures]
    for picture, each, faces in zip(pictures, wide, detector.detect([each.image for each in wide]), strict=True):
        certain = each.in_picture(faces[faces.scores >= CERTAIN])
        if len(certain) == 1:
            found.append((certain.landmarks[0] + 0.5) / picture.shape[0])
    return np.array(found).reshape(-1, 5, 2)
