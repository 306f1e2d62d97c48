"""The pictures of one or several faces stores as one numbered list, and the order in which epochs use them."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from checkpoints.artifact import combine_hashes
from checkpoints.errors import UserError
from preprocessing.faces import FacesStore
from preprocessing.views import row_name
from pretrain.duplicates import duplicates_across, store_hashes
from wildaffect.tasks.folds import read_known_ids, without


class Faces(Protocol):
    """What a run needs to know about its pictures, apart from batches."""

    def __len__(self) -> int:
        """Number of pictures."""

    @property
    def synthetic(self) -> bool:
        """Whether all of them are drawn."""

    @property
    def videos(self) -> list[str]:
        """Names of the videos that they come from."""

    def jpeg(self, index: int) -> bytes:
        """JPEG bytes of one picture, to look at."""


class HasFingerprint(Protocol):
    """A store, whether local or streamed."""

    @property
    def fingerprint(self) -> str:
        """Identifies its content."""


class FacesMixture:
    """All pictures of all stores, numbered from 0, except those left out.

    Without weights, an epoch has every picture once. With weights it has the same length, and each store gets its share
    of the places. A store fills its places with shuffled passes over its pictures that continue from epoch to epoch, so
    every picture is used before any is used again. The order depends only on the seed.

    Args:
        paths: Faces stores. If a picture is in several stores, only the first store's copy is used.
        weights: Share of each store in the batches; empty: in proportion to the number of pictures.
        exclude: List of ids whose recordings are left out, one per line.
        seed: Seed of the passes.

    Raises:
        UserError: A store cannot be read or has no picture to train on, or the weights are invalid.
    """

    def __init__(
        self, paths: Sequence[Path], weights: Sequence[float] = (), exclude: Path | None = None, seed: int = 0
    ) -> None:
        self.stores = [FacesStore(path) for path in paths]
        self.weights, self._seed = tuple(weights), seed
        check_weights(weights, len(paths))
        known = (sequence.id for store in self.stores for sequence in store.sequences())
        self._ids = [] if exclude is None else read_known_ids(exclude, known)
        self._rows, excluded = zip(*(_allowed(store, self._ids) for store in self.stores), strict=True)
        same = [np.zeros(len(rows), bool) for rows in self._rows]
        if len(self.stores) > 1:
            same = duplicates_across([store_hashes(s)[r] for s, r in zip(self.stores, self._rows, strict=True)])
        self._rows = [rows[~found] for rows, found in zip(self._rows, same, strict=True)]
        self._left_out = [
            {"excluded": n, "duplicates": int(found.sum())} for n, found in zip(excluded, same, strict=True)
        ]
        for store, rows, out in zip(self.stores, self._rows, self._left_out, strict=True):
            if not len(rows):
                raise UserError(
                    f"{store.path}: no picture with a face to train on (--exclude leaves out {out['excluded']}; "
                    f"{out['duplicates']} are duplicates of pictures in earlier stores)"
                )

        # Pictures and places are numbered store by store. Example: stores of 20 and 9 pictures with weights 1 and 3 get
        # 7 and 22 of an epoch's 29 places. The second has pictures 20 to 28 and places 7 to 28. Epoch 0 uses the first
        # 22 pictures of its endless sequence of shuffled passes, epoch 1 the next 22.
        sizes = np.array([len(rows) for rows in self._rows])
        self._places = _divided(int(sizes.sum()), np.array(weights or sizes, float))
        self._first_picture, self._first_place = (np.cumsum(counts) - counts for counts in (sizes, self._places))
        self._row, self._store = np.concatenate(self._rows), np.repeat(np.arange(len(sizes)), sizes)

    def __len__(self) -> int:
        return len(self._row)

    def pick(self, epoch: int, place: int) -> int:
        """Number of the picture at a place of an epoch."""
        if not self.weights:
            return place
        store = int(np.searchsorted(self._first_place, place, side="right")) - 1
        size = len(self._rows[store])
        used_before = epoch * int(self._places[store]) + place - int(self._first_place[store])
        turn, position = divmod(used_before, size)
        return int(self._first_picture[store]) + int(_pass(self._seed, store, turn, size)[position])

    def statistics(self, epochs: float) -> list[dict[str, Any]]:
        """For each store: its pictures, what was left out, and the passes over it in a run of `epochs` epochs."""
        found = []
        for store, rows, left_out, places in zip(self.stores, self._rows, self._left_out, self._places, strict=True):
            grey = [_brightness(store, row) for row in rows[:: max(1, len(rows) // 200)].tolist()]
            facts = {"store": store.path.name, "pictures": len(rows), "image_size": store.image_size, **left_out}
            facts |= {"share": float(places / len(self)), "passes": float(epochs * places / len(rows))}
            found.append(facts | {"brightness": float(np.nanmean(grey)), "brightness_std": float(np.nanstd(grey))})
        return found

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of each store, in the order given, and of the excluded ids."""
        return fingerprints_of(self.stores, self._ids)

    @property
    def synthetic(self) -> bool:
        """Whether all stores declare their faces to be drawn."""
        return all(store.header.get("synthetic", False) for store in self.stores)

    @property
    def videos(self) -> list[str]:
        """Names of the videos (not of single pictures) that the pictures come from."""
        names = set()
        for store, rows in zip(self.stores, self._rows, strict=True):
            used = set(store.video[rows])
            names |= {seq.video for seq in store.sequences() if seq.length > 1 and seq.video in used}
        return sorted(names)

    def jpeg(self, index: int) -> bytes:
        """JPEG bytes of picture `index`."""
        jpeg = self.stores[self._store[index]].jpeg(int(self._row[index]))
        assert jpeg is not None  # the list has only rows with a picture
        return jpeg

    def name(self, index: int) -> str:
        """Store, video, subject and frame of picture `index`, for messages."""
        return row_name(self.stores[self._store[index]], int(self._row[index]))


def as_text(statistics: Sequence[dict[str, Any]]) -> str:
    """Format the statistics of a mixture, one line per store."""
    lines = []
    for part in statistics:
        left_out = [f"{part[what]:,} {what}" for what in ("excluded", "duplicates") if part[what]]
        lines.append(
            f"  {part['store']}: {part['pictures']:,} pictures of {part['image_size']} px"
            + (f" ({', '.join(left_out)} left out)" if left_out else "")
            + f", {part['share']:.1%} of the batches, {part['passes']:.1f} passes; brightness "
            f"{part['brightness']:.0f} +- {part['brightness_std']:.0f}"
        )
    return "\n".join(lines)


def _divided(total: int, weights: np.ndarray) -> np.ndarray:
    """Divide `total` places in proportion to weights, rounded by largest remainder: 29 by (1, 3) gives (7, 22)."""
    exact = weights / weights.sum() * total
    places = np.floor(exact).astype(int)
    places[np.argsort(places - exact, kind="stable")[: total - places.sum()]] += 1
    return places


@lru_cache(maxsize=16)
def _pass(seed: int, store: int, turn: int, size: int) -> np.ndarray:
    """Order of a store's pictures in one pass."""
    return np.random.default_rng((seed, store, turn)).permutation(size)


def fingerprints_of(stores: Iterable[HasFingerprint], excluded: Sequence[str]) -> dict[str, str]:
    """Fingerprint of each store, in the order given, and of the excluded ids."""
    found = {f"faces_{number}": store.fingerprint for number, store in enumerate(stores)}
    return found | ({"excluded": combine_hashes(dict.fromkeys(excluded, ""))} if excluded else {})


def check_weights(weights: Sequence[float], stores: int) -> None:
    """Raise a UserError unless there are no weights or a positive one for each store."""
    if weights and (len(weights) != stores or min(weights) <= 0):
        raise UserError(f"--weights {' '.join(map(str, weights))}: expected {stores} numbers above 0")


def _allowed(store: FacesStore, excluded: Sequence[str]) -> tuple[np.ndarray, int]:
    """Rows with a picture that are not excluded, and how many are."""
    sequences = store.sequences() if excluded else []
    stay = set(without([seq.id for seq in sequences], excluded))
    allowed = np.ones(len(store), bool)
    for seq in sequences:
        allowed[seq.start : seq.start + seq.length] = seq.id in stay
    return np.flatnonzero(store.valid & allowed), int((store.valid & ~allowed).sum())


def _brightness(store: FacesStore, row: int) -> float:
    """Mean grey value of a picture, NaN if it cannot be decoded."""
    grey = cv2.imdecode(np.frombuffer(store.jpeg(row) or b"\0", np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_4)
    return float("nan") if grey is None else float(grey.mean())
