"""What a face detector finds and what is asked of one, and the geometry of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Faces:
    """The faces of one picture, or one face in each of several.

    Attributes:
        boxes: x1, y1, x2, y2 in pixels, float32 [N, 4].
        landmarks: Left eye, right eye, nose, left and right mouth corner (x, y), float32 [N, 5, 2].
        scores: Confidence in 0..1, float32 [N].
    """

    boxes: np.ndarray
    landmarks: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Any) -> Faces:
        """Choose faces by a mask, a slice or an array of indices."""
        return Faces(self.boxes[index], self.landmarks[index], self.scores[index])

    @classmethod
    def none(cls) -> Faces:
        """No face."""
        return cls(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32))

    @classmethod
    def join(cls, parts: Sequence[Faces]) -> Faces:
        """The faces of several in one."""
        if not parts:
            return cls.none()
        return cls(*(np.concatenate([getattr(p, n) for p in parts]) for n in ("boxes", "landmarks", "scores")))


class Detector(Protocol):
    """What preprocessing asks of a face detector. Pictures are RGB, uint8 [H, W, 3], of any sizes."""

    def detect(self, images: Sequence[np.ndarray]) -> list[Faces]:
        """Find all faces of each picture."""
        ...

    def refine(self, images: Sequence[np.ndarray], boxes: np.ndarray) -> Faces:
        """Find the face near `boxes[i]` (float [N, 4]) in `images[i]`: N faces; a low score means it is not there."""
        ...


def square(boxes: np.ndarray) -> np.ndarray:
    """Boxes [N, 4] made square around their centre, by their longer side."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True, initial=0) / 2
    return np.concatenate([centre - half, centre + half], 1)


def regress(boxes: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Move the sides of boxes [N, 4] by parts [N, 4] of their width and height."""
    side = boxes[:, 2:] - boxes[:, :2] + 1
    return boxes + shift * np.concatenate([side, side], 1)


def place(boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [N, 10] (five x, then five y, as parts of a box) in pixels of the picture [N, 5, 2]."""
    side = boxes[:, 2:] - boxes[:, :2] + 1
    return points.reshape(-1, 2, 5).transpose(0, 2, 1) * side[:, None] + boxes[:, None, :2] - 1


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of `a` [N, 4] with every box of `b` [M, 4]: [N, M]."""
    overlap = _overlap(a, b)
    return overlap / (_area(a)[:, None] + _area(b) - overlap).clip(1e-9)


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    corner = np.maximum(a[:, None, :2], b[:, :2])
    side = (np.minimum(a[:, None, 2:], b[:, 2:]) - corner).clip(0)
    return side[..., 0] * side[..., 1]


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)


def distinct(faces: Faces, threshold: float) -> Faces:
    """Drop a face that lies in a better one of the same picture, measured by the smaller of the two; best first."""
    faces = faces[np.argsort(-faces.scores, kind="stable")]
    area = _area(faces.boxes)
    covered = _overlap(faces.boxes, faces.boxes) / np.minimum(area[:, None], area).clip(1e-9) > threshold
    keep: list[int] = []
    for index in range(len(faces)):
        if not covered[index, keep].any():
            keep.append(index)
    return faces[keep]
