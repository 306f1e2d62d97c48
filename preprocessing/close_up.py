"""Single pictures: the face often fills them, so that they are searched with room around them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from preprocessing.detect import Faces
from preprocessing.search import Detect, Refine, Request

ROOM = 0.25
"""Room added on every side, as a share of the longer side: the detector finds faces better that do not fill everything,
and cannot find a face whose box would exceed the picture."""
SIDE = 96
"""Pictures with a smaller longer side are enlarged to it."""
WHOLE = 0.3
"""Minimum score of a face that is taken to fill the picture because nothing else was found in it."""
SIZES = (0.8, 1.0, 1.2, 1.4)
"""Sides of the boxes tried for such a face, as shares of the picture's longer side."""
SHIFTS = (-0.12, 0.0, 0.12)
"""Distances of their centres from the picture's centre, likewise."""


@dataclass(frozen=True)
class Widened:
    """A picture with room around it.

    Attributes:
        image: RGB, uint8 [H, W, 3]; the room repeats the picture's edges.
        room: Width of the room in pixels of `image`.
        scale: Pixels of `image` per pixel of the picture.
    """

    image: np.ndarray
    room: int
    scale: float

    def in_picture(self, faces: Faces) -> Faces:
        """Faces found in `image`, in pixels of the picture."""

        def moved(points: np.ndarray) -> np.ndarray:
            # Pixel centres: x_image = (x_picture + 0.5) * scale - 0.5 + room
            return ((points - self.room + 0.5) / self.scale - 0.5).astype(np.float32)

        return Faces(moved(faces.boxes), moved(faces.landmarks), faces.scores)


def widen(picture: np.ndarray, side: int = SIDE) -> Widened:
    """Enlarge a small picture so that its longer side has `side` pixels, and add `ROOM` on every side."""
    height, width = picture.shape[:2]
    scale = max(1.0, side / max(height, width))
    if scale > 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)
    room = round(ROOM * max(picture.shape[:2]))
    return Widened(cv2.copyMakeBorder(picture, room, room, room, room, cv2.BORDER_REPLICATE), room, scale)


def find_in_pictures(
    pictures: Sequence[np.ndarray], _cuts: Sequence[int] = (), _known: Faces | None = None
) -> Generator[Request, Any, list[Faces]]:
    """Find the faces of single pictures. Where none is found, a face is taken to fill the picture.

    The detector's last two networks then look at boxes of about the picture's size, and decide whether there is one.
    Takes the arguments of :func:`preprocessing.search.find_faces`, of which pictures need only the first.
    """
    wide = [widen(picture) for picture in pictures]
    found: list[Faces] = yield Detect([each.image for each in wide])
    empty = [index for index, faces in enumerate(found) if not len(faces)]
    if empty:
        boxes = np.concatenate([filling(wide[index]) for index in empty])
        tries = len(boxes) // len(empty)
        whole: Faces = yield Refine([wide[index].image for index in empty for _ in range(tries)], boxes)
        for place, index in enumerate(empty):
            faces = whole[place * tries : (place + 1) * tries]
            best = int(faces.scores.argmax())
            if faces.scores[best] >= WHOLE:
                found[index] = faces[best : best + 1]
    return [each.in_picture(faces) for each, faces in zip(wide, found, strict=True)]


def filling(wide: Widened) -> np.ndarray:
    """Square boxes float32 [N, 4] in pixels of `wide.image` that a face which fills the picture may have."""
    height, width = wide.image.shape[:2]
    side = max(height, width) - 2 * wide.room
    size, right, down = (grid.ravel() for grid in np.meshgrid(SIZES, SHIFTS, SHIFTS, indexing="ij"))
    centre = np.stack([width / 2 + right * side, height / 2 + down * side], 1)
    half = size[:, None] * side / 2
    return np.concatenate([centre - half, centre + half], 1).astype(np.float32)
