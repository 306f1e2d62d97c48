"""Frames of a faces store with their targets: which ones an epoch draws, and how they become batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from checkpoints.errors import UserError
from preprocessing.faces import FacesStore
from preprocessing.views import BY_LANDMARKS, by_landmarks, cut
from wildaffect.training.images import CropDataset, decode, resize


@dataclass(frozen=True)
class LabelledFrames:
    """Rows of a store that have a picture and a label.

    Attributes:
        rows: `[N]` int64 rows of the store, grouped by sequence.
        targets: `[N, 8]` float32 distributions over the expressions.
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

    A video of n frames takes `min(n, most)` places. They go through its frames in a shuffled order that carries on from
    epoch to epoch, so that every frame is seen before one is seen again.

    Args:
        frames: What to draw from.
        most: Frames per video and epoch; 0: all.
        seed: Seed of the order.
    """

    def __init__(self, frames: LabelledFrames, most: int, seed: int) -> None:
        sizes = np.diff(frames.bounds)
        self.places = np.minimum(sizes, most) if most else sizes
        self._first = np.cumsum(self.places) - self.places
        self._bounds, self._sizes, self.seed = frames.bounds, sizes, seed
        self._orders: dict[int, tuple[int, np.ndarray]] = {}
        self.count = int(self.places.sum())
        mass = np.zeros(frames.targets.shape[1])
        for video, (start, stop) in enumerate(zip(frames.bounds[:-1], frames.bounds[1:], strict=True)):
            mass += frames.targets[start:stop].mean(axis=0) * self.places[video]
        self.mass: np.ndarray = mass / mass.sum()

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


def training_frames(
    store: FacesStore, frames: LabelledFrames, draw: EpochDraw, *, view: str, **kwargs: Any
) -> CropDataset:
    """Augmented crops with their targets, addressed by (epoch, place) pairs.

    Args:
        store: Where the pictures are.
        frames: Which ones.
        draw: Which frame is at which place.
        view: Part of the face.
        kwargs: See :class:`wildaffect.training.images.CropDataset`.
    """
    return CropDataset(
        count=len(frames),
        pick=draw,
        jpeg=lambda index: picture_bytes(store, int(frames.rows[index])),
        name=lambda index: row_name(store, int(frames.rows[index])),
        extras=lambda _rng, index: {"targets": frames.targets[index]},
        prepare=lambda picture, index: cut_row(store, int(frames.rows[index]), picture, view),
        **kwargs,
    )


class StillFrames(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Pictures as they are, for validation and extraction, addressed by rows of a store.

    Args:
        store: Where the pictures are.
        views: Parts of the face, V of them.
        size: Side of the result in pixels.
    """

    def __init__(self, store: FacesStore, views: Sequence[str], size: int) -> None:
        self.store, self.views, self.size = store, tuple(views), size

    def __getitems__(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """Pictures of some rows: `images` uint8 `[B, V, 3, S, S]`; `readable` `[B]`, false where decoding failed."""
        pictures = [self[row] for row in rows]
        blank = torch.zeros(len(self.views), 3, self.size, self.size, dtype=torch.uint8)
        return {
            "images": torch.stack([blank if picture is None else picture for picture in pictures]),
            "readable": torch.tensor([picture is not None for picture in pictures]),
        }

    def __getitem__(self, row: int) -> torch.Tensor | None:  # type: ignore[override]
        """Every view of one row, uint8 `[V, 3, S, S]`; None if its picture cannot be decoded."""
        try:
            picture = decode(picture_bytes(self.store, row))
        except RuntimeError as error:
            print(f"skipped a bad picture: {row_name(self.store, row)}: {error}", flush=True)
            return None
        return torch.stack([resize(cut_row(self.store, row, picture, view), self.size) for view in self.views])


def cut_row(store: FacesStore, row: int, picture: torch.Tensor, view: str) -> torch.Tensor:
    """Cut a view out of a row's decoded picture."""
    return cut(picture, view, store.picture_landmarks(row) if by_landmarks(view) else None)


def check_views(store: FacesStore, views: Sequence[str]) -> None:
    """Refuse views by landmarks of a store without any.

    Raises:
        UserError: None of the first faces has landmarks.
    """
    asked = [view for view in views if by_landmarks(view)]
    first = np.flatnonzero(store.valid)[:100].tolist()
    if asked and all(store.landmarks(row) is None for row in first):
        raise UserError(
            f"--view {asked[0]} needs landmarks and {store.path} has none (its pictures came as ready faces): use "
            f"--view {asked[0].removesuffix(BY_LANDMARKS)}, or run preprocessing without --crops"
        )


def picture_bytes(store: FacesStore, row: int) -> bytes:
    """JPEG bytes of a row that has a picture."""
    jpeg = store.jpeg(row)
    assert jpeg is not None, "only rows with a picture are asked for"
    return jpeg


def row_name(store: FacesStore, row: int) -> str:
    """Store, video, subject and frame of a row, for messages."""
    subject = f" {store.subject[row]}" if store.subject[row] else ""
    return f"{store.path}: video {store.video[row]}{subject}, frame {store.frame[row]}"
