"""The framing of faces: where the five landmarks lie in a square picture of a face.

An encoder and a head know faces as they were framed in training, so the framing travels with stores, feature caches and
heads, and inference frames faces in the same way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

# Left eye, right eye, nose tip, left and right mouth corner (as seen in the picture) of 112 x 112 pixels, to which
# ArcFace and most tools of this field align faces (Deng et al. 2019, arXiv:1801.07698).
ARCFACE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
MARGIN = 0.1
"""Room that our alignment adds on every side of ArcFace's framing, as a share of the side: it keeps the chin of an open
mouth and raised brows in view."""
TOLERANCE = 0.03
"""A measured framing within this distance of a named one, as a share of the side, is taken for that one."""


Point = tuple[float, float]


class FramingForm(TypedDict):
    """A framing in a header."""

    name: str
    points: tuple[Point, Point, Point, Point, Point] | tuple[()]


@dataclass(frozen=True)
class Framing:
    """Where the five landmarks lie in the pictures of faces.

    Attributes:
        name: `wildaffect`, `arcface`, `measured` or `unknown`.
        points: Five (x, y) as shares of the side of the picture; empty if unknown.
    """

    name: str
    points: tuple[tuple[float, float], ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether faces can be aligned to it."""
        return bool(self.points)

    @property
    def for_alignment(self) -> "Framing":
        """What faces are aligned to: this framing, or our own if this one is unknown."""
        return self if self.is_known else OURS

    @property
    def identity(self) -> Any:
        """What two framings that differ differ in: points rounded to three decimals, or the name if there are none."""
        return [[round(x, 3), round(y, 3)] for x, y in self.points] or self.name

    def template(self, size: int) -> np.ndarray:
        """Landmarks in a picture of `size` x `size` pixels, `[5, 2]`; pixel centres lie at whole numbers."""
        return np.array(self.points) * size - 0.5

    def as_dict(self) -> dict[str, Any]:
        """For headers and hashes."""
        return {"name": self.name, "points": [list(point) for point in self.points]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Framing":
        """Read what :meth:`as_dict` wrote, which has the form of :class:`FramingForm`."""
        return cls(content["name"], tuple((float(x), float(y)) for x, y in content["points"]))

    @classmethod
    def of_points(cls, points: np.ndarray) -> "Framing":
        """The named framing that measured points `[5, 2]` (shares of the side) are closest to, or `measured`.

        Measured points are rounded to two decimals, so that two samples of the same crops mostly agree.
        """
        for framing in NAMED.values():
            if framing.is_known and np.linalg.norm(points - np.array(framing.points), axis=1).max() <= TOLERANCE:
                return framing
        return cls("measured", tuple((round(float(x), 2), round(float(y), 2)) for x, y in points))


def _shares(margin: float) -> tuple[tuple[float, float], ...]:
    points = (ARCFACE_112 + 0.5) / 112 * (1 - 2 * margin) + margin
    return tuple((float(x), float(y)) for x, y in points)


OURS = Framing("wildaffect", _shares(MARGIN))
ARCFACE = Framing("arcface", _shares(0.0))
UNKNOWN = Framing("unknown")
TO_MEASURE = Framing("measured")
"""Stands for the framing of ready crops until they are measured."""
NAMED = {framing.name: framing for framing in (OURS, ARCFACE, UNKNOWN)}
