"""Finds faces by searching few frames in full and refining the ones between; finds shot cuts."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from preprocessing.detect import Faces, iou

INTERVAL = 16
"""Number of frames from one full search to the next."""
STRONG = 0.9
"""A face with at least this score should be found in the neighbouring frames too."""
FLOOR = 0.7
"""Minimum score of a refined face: the threshold of MTCNN's last network."""
CUT = 0.7
"""Minimum drop in correlation between the thumbnails of two frames for a shot cut."""
FLAT = 32 * 32 * 3 * 2.0**2
"""Contrast (two grey levels) below which pictures count as alike, so that there are no cuts in black."""


# A video requests its detections, so that one detector can serve several videos in one batch.


@dataclass(frozen=True)
class Detect:
    """Request all faces of each picture; the answer is a `list[Faces]`."""

    images: list[np.ndarray]


@dataclass(frozen=True)
class Refine:
    """Request the face near `boxes[i]` in `images[i]`; the answer is a `Faces` of the same length."""

    images: list[np.ndarray]
    boxes: np.ndarray


Request = Detect | Refine


def find_faces(
    images: Sequence[np.ndarray], cuts: Sequence[int], known: Faces | None = None
) -> Generator[Request, Any, list[Faces]]:
    """Find the faces of consecutive frames without searching every frame.

    The whole picture is searched every `INTERVAL` frames and on both sides of a cut. Between two searched frames, the
    faces of the middle frame are predicted from both and refined; then the middle of each half, and so on. If a face is
    lost, appears or drops in score, the middle frame is searched in full instead, so hard passages cost more time, not
    accuracy.

    Args:
        images: Frames, uint8 [H, W, 3].
        cuts: Indices of frames that start a new shot.
        known: Faces of the first frame, if already known.

    Returns:
        Faces of every frame.
    """
    found: dict[int, Faces] = {} if known is None else {0: known}
    keys: set[int] = set()
    segments: list[tuple[int, int]] = []
    bounds = [0, *cuts, len(images)]
    for start, end in pairwise(bounds):
        shot = [*range(start, end - 1, INTERVAL), end - 1]
        keys.update(shot)
        segments += [(a, b) for a, b in pairwise(shot) if b - a > 1]
    search = sorted(keys - found.keys())
    found.update(zip(search, (yield Detect([images[i] for i in search])), strict=True))

    while segments:
        expected = {(a + b) // 2: _between(found[a], found[b]) for a, b in segments}
        middles = [m for m, (faces, _) in expected.items() for _ in range(len(faces))]
        refined = Faces.none()
        if middles:
            boxes = np.concatenate([faces.boxes for faces, _ in expected.values()])
            refined = yield Refine([images[m] for m in middles], boxes)
        lost, start = [], 0
        for m, (predicted, alone) in expected.items():
            faces = refined[start : start + len(predicted)]
            start += len(predicted)
            good = confirmed(predicted.boxes, faces)
            found[m] = faces[good]
            if alone or (predicted.scores[~good] >= STRONG).any():
                lost.append(m)
        if lost:
            for m, faces in zip(lost, (yield Detect([images[i] for i in lost])), strict=True):
                found[m] = joined(faces, found[m])
        halves = [half for a, b in segments for half in ((a, (a + b) // 2), ((a + b) // 2, b))]
        segments = [(a, b) for a, b in halves if b - a > 1]
    return [found[i] for i in range(len(images))]


def _between(before: Faces, after: Faces) -> tuple[Faces, bool]:
    """Faces expected halfway, with the lower of the two scores, and whether a strong face has no partner."""
    pairs = np.array(match(before.boxes, after.boxes), dtype=np.int64).reshape(-1, 2)
    a, b = before[pairs[:, 0]], after[pairs[:, 1]]
    predicted = Faces((a.boxes + b.boxes) / 2, (a.landmarks + b.landmarks) / 2, np.minimum(a.scores, b.scores))
    alone = any((np.delete(faces.scores, pairs[:, side]) >= STRONG).any() for side, faces in enumerate((before, after)))
    return predicted, alone


def confirmed(boxes: np.ndarray, faces: Faces) -> np.ndarray:
    """Which refined faces are where they were expected, score high enough and do not overlap [N]."""
    same = iou(faces.boxes, faces.boxes) > 0.5
    np.fill_diagonal(same, False)
    near = np.diag(iou(boxes, faces.boxes)) > 0.3
    return (faces.scores >= FLOOR) & near & ~same.any(1)


def joined(searched: Faces, refined: Faces) -> Faces:
    """The faces of a full search of a picture, and the refined ones that it missed."""
    new = iou(refined.boxes, searched.boxes).max(1, initial=0) < 0.4
    return Faces.join([searched, refined[new]])


def match(a: np.ndarray, b: np.ndarray, likeness: np.ndarray | None = None) -> list[tuple[int, int]]:
    """Pair the boxes of two frames, closest first, if their centres are less than one box size apart.

    Args:
        a: Boxes [N, 4].
        b: Boxes [M, 4].
        likeness: Correlation of their appearance [N, M], if known.

    Returns:
        Pairs of indices. A box is in at most one pair.
    """
    if not len(a) or not len(b):
        return []
    size_a, size_b = ((boxes[:, 2:] - boxes[:, :2]).mean(1).clip(1) for boxes in (a, b))
    centre_a, centre_b = ((boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (a, b))
    size = np.maximum(size_a[:, None], size_b)
    distance = np.linalg.norm(centre_a[:, None] - centre_b, axis=-1) / size
    ratio = size / np.minimum(size_a[:, None], size_b)
    cost = distance + np.log(ratio)
    possible = (distance < 1) & (ratio < 2)
    if likeness is not None:
        cost = cost + 0.5 * (1 - likeness)
        possible &= (distance < 0.5) | (likeness > 0.5)
    pairs: list[tuple[int, int]] = []
    cost = np.where(possible, cost, np.inf)
    while np.isfinite(best := cost.min()):
        i, j = (int(k) for k in np.argwhere(cost == best)[0])
        pairs.append((i, j))
        cost[i], cost[:, j] = np.inf, np.inf
    return pairs


class ShotDetector:
    """Finds hard cuts frame by frame: the new picture has little in common with the one before.

    Pictures are compared by the correlation of their thumbnails, which is robust to changes of light and to darkness.
    Fast movement also makes pictures differ, but over several frames; a cut is a single jump.
    """

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._shape: tuple[int, ...] = ()
        self._change = 0.0

    def is_cut(self, image: np.ndarray) -> bool:
        """Whether this frame (uint8 [H, W, 3]) starts a new shot; False for the first frame."""
        step = max(1, min(image.shape[:2]) // 64)
        thumbnail = cv2.resize(image[::step, ::step], (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
        thumbnail -= thumbnail.mean((0, 1))
        last, shape, before = self._last, self._shape, self._change
        self._last, self._shape, self._change = thumbnail, image.shape, 0.0
        if last is None:
            return False
        self._change = 1 - float((thumbnail * last).sum() + FLAT) / (
            float(np.linalg.norm(thumbnail) * np.linalg.norm(last)) + FLAT
        )
        return shape != image.shape or (self._change > CUT and self._change > 3 * before)
