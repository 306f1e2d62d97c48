"""Frames of a faces store with their targets: which ones an epoch draws, and how they become batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from preprocessing.faces import FacesStore
from preprocessing.views import row_name, row_views
from wildaffect.training.images import CropDataset


@dataclass(frozen=True)
class LabelledFrames:
    """Rows of a store that have a picture and a label.

    Attributes:
        rows: `[N]` int64 rows of the store, grouped by sequence.
        targets: `[N, 8]` float32 distributions over the expressions; `[N, 8 + 12]` after :func:`combined`.
        bounds: `[V + 1]` int64; frames of sequence v are `bounds[v]` to `bounds[v + 1] - 1`.
        ids: `[V]` names of the sequences.
    """

    rows: np.ndarray
    targets: np.ndarray
    bounds: np.ndarray
    ids: list[str]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def classes(self) -> np.ndarray:
        """`[N]` likeliest class of each frame."""
        return self.targets.argmax(axis=1)

    def spaced(self, most: int) -> "LabelledFrames":
        """At most `most` evenly spaced frames of each sequence; all for 0."""
        if not most:
            return self
        keep = []
        for start, stop in zip(self.bounds[:-1], self.bounds[1:], strict=True):
            count = min(most, int(stop - start))
            keep.append(start + (np.arange(count) * int(stop - start)) // count)
        bounds = np.cumsum([0, *(len(part) for part in keep)])
        taken = np.concatenate(keep)
        return LabelledFrames(self.rows[taken], self.targets[taken], bounds, self.ids)


class EpochDraw:
    """Which frame each place of an epoch holds: so many of every video, other ones in each epoch.

    A video of n frames takes `min(n, most)` places, or n if `most` is 0. They go through its frames in a shuffled order
    that carries on from epoch to epoch, so that every frame is seen before one is seen again.

    Attributes:
        places: `[V]` number of places of each video.
        count: Number of places.
        mass: `[C]` share of each class in the labels of an epoch; NaN if a frame has none.
        labelled: `[C]` share of an epoch's places that have each label.
    """

    def __init__(self, frames: LabelledFrames, most: int, seed: int) -> None:
        sizes = np.diff(frames.bounds)
        self.places = np.minimum(sizes, most) if most else sizes
        self._first = np.cumsum(self.places) - self.places
        self._bounds, self._sizes, self.seed = frames.bounds, sizes, seed
        self._orders: dict[int, tuple[int, np.ndarray]] = {}
        self.count = int(self.places.sum())
        mass, labelled = np.zeros((2, frames.targets.shape[1]))
        for video, (start, stop) in enumerate(zip(frames.bounds[:-1], frames.bounds[1:], strict=True)):
            targets = frames.targets[start:stop]
            mass += targets.mean(axis=0) * self.places[video]
            labelled += (~np.isnan(targets)).mean(axis=0) * self.places[video]
        self.mass: np.ndarray = mass / mass.sum()
        self.labelled: np.ndarray = labelled / self.count

    def __call__(self, epoch: int, place: int) -> int:
        """Number of the frame at a place of an epoch."""
        video = int(np.searchsorted(self._first, place, side="right")) - 1
        size = int(self._sizes[video])
        turn, within = divmod(epoch * int(self.places[video]) + place - int(self._first[video]), size)
        return int(self._bounds[video]) + int(self._order(video, turn, size)[within])

    def _order(self, video: int, turn: int, size: int) -> np.ndarray:
        known = self._orders.get(video)
        if known is None or known[0] != turn:
            known = self._orders[video] = turn, np.random.default_rng((self.seed, video, turn)).permutation(size)
        return known[1]


def combined(expressions: LabelledFrames, units: LabelledFrames, offset: int) -> LabelledFrames:
    """Frames labelled with expressions and frames of a second store labelled with action units, as one set.

    Args:
        expressions: Targets `[N, 8]`.
        units: Targets `[M, 12]`.
        offset: Number of rows of the first store, at which those of the second begin.

    Returns:
        Targets `[N + M, 20]`, NaN for what a frame is not labelled with.
    """
    classes, width = expressions.targets.shape[1], units.targets.shape[1]
    targets = np.full((len(expressions) + len(units), classes + width), np.nan, np.float32)
    targets[: len(expressions), :classes] = expressions.targets
    targets[len(expressions) :, classes:] = units.targets
    return LabelledFrames(
        np.concatenate([expressions.rows, units.rows + offset]),
        targets,
        np.concatenate([expressions.bounds, units.bounds[1:] + len(expressions)]),
        [*expressions.ids, *units.ids],
    )


def training_frames(
    stores: Sequence[FacesStore], frames: LabelledFrames, draw: EpochDraw, *, view: str, **kwargs: Any
) -> CropDataset:
    """Augmented crops with their targets, addressed by (epoch, place) pairs.

    Rows count through the stores one after another. The further arguments are those of
    :class:`wildaffect.training.images.CropDataset`.
    """
    first = np.cumsum([0, *(len(store) for store in stores)])

    def place(index: int) -> tuple[FacesStore, int]:
        row = int(frames.rows[index])
        number = int(np.searchsorted(first, row, side="right")) - 1
        return stores[number], row - int(first[number])

    return CropDataset(
        count=len(frames),
        pick=draw,
        picture=lambda index: row_views(*place(index), [view])[0],
        name=lambda index: row_name(*place(index)),
        extras=lambda _rng, index: {"targets": frames.targets[index]},
        **kwargs,
    )
