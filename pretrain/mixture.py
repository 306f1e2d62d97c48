"""The pictures of one or several faces stores as one numbered list, and which of them each place of an epoch holds."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from checkpoints.artifact import combine_hashes
from checkpoints.errors import UserError
from preprocessing.faces import FacesStore
from pretrain.duplicates import duplicates_across, store_hashes
from wildaffect.tasks.folds import group_of, read_ids, without


class Faces(Protocol):
    """What a run needs of its pictures beside batches."""

    def __len__(self) -> int:
        """Number of pictures."""

    @property
    def synthetic(self) -> bool:
        """Whether they are drawn."""

    @property
    def videos(self) -> list[str]:
        """Names of the videos that they come from."""

    def jpeg(self, index: int) -> bytes:
        """JPEG bytes of one to look at."""


class FacesMixture:
    """Every picture of every store, numbered from 0, less what is left out.

    Without weights an epoch is every picture once. With weights it is as long, and each store has its share of it: a
    store goes through its pictures in shuffled passes that carry on from epoch to epoch, so that each is seen before
    one is seen again. What stands at a place of an epoch depends on the seed alone.

    Args:
        paths: Faces stores. Of near-duplicates in different stores the first store's is kept.
        weights: Share of each store in the batches; none: by number of pictures.
        exclude: List of ids whose recordings are left out, one per line.
        seed: Seed of the passes.

    Raises:
        UserError: A store cannot be read, weights do not fit, or a store holds no picture to train on.
    """

    def __init__(
        self, paths: Sequence[Path], weights: Sequence[float] = (), exclude: Path | None = None, seed: int = 0
    ) -> None:
        self.stores = [FacesStore(path) for path in paths]
        self.weights, self._seed = tuple(weights), seed
        if weights and (len(weights) != len(paths) or min(weights) <= 0):
            raise UserError(f"--weights {' '.join(map(str, weights))}: expected {len(paths)} numbers above 0")
        self._ids = [] if exclude is None else _known(read_ids(exclude), self.stores, exclude)
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
                    f"{store.path}: no picture with a face to train on ({out['excluded']} are left out by --exclude, "
                    f"{out['duplicates']} as duplicates of those in stores named before it)"
                )

        # Pictures are numbered store by store, and so are the places of an epoch: largest remainders of the weights.
        sizes = np.array([len(rows) for rows in self._rows])
        shares = np.array(weights or sizes, float)
        exact = shares / shares.sum() * sizes.sum()
        self._places = np.floor(exact).astype(int)
        self._places[np.argsort(self._places - exact, kind="stable")[: sizes.sum() - self._places.sum()]] += 1
        self._starts, self._first = np.cumsum(sizes) - sizes, np.cumsum(self._places) - self._places
        self._row, self._store = np.concatenate(self._rows), np.repeat(np.arange(len(sizes)), sizes)

    def __len__(self) -> int:
        return len(self._row)

    def pick(self, epoch: int, place: int) -> int:
        """Number of the picture at a place of an epoch."""
        if not self.weights:
            return place
        store = int(np.searchsorted(self._first, place, side="right")) - 1
        size = len(self._rows[store])
        drawn = epoch * int(self._places[store]) + place - int(self._first[store])
        turn, within = divmod(drawn, size)
        return int(self._starts[store]) + int(_pass(self._seed, store, turn, size)[within])

    def statistics(self, epochs: float) -> list[dict[str, Any]]:
        """Of each store: what it brings, what was left out of it, how often a run of so many epochs goes through it."""
        found = []
        for store, rows, left_out, places in zip(self.stores, self._rows, self._left_out, self._places, strict=True):
            grey = [_brightness(store, row) for row in rows[:: max(1, len(rows) // 200)].tolist()]
            facts = {"store": store.path.name, "pictures": len(rows), "image_size": store.image_size, **left_out}
            facts |= {"share": float(places / len(self)), "passes": float(epochs * places / len(rows))}
            found.append(facts | {"brightness": float(np.nanmean(grey)), "brightness_std": float(np.nanstd(grey))})
        return found

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of each store, in the order given, and of what the list leaves out."""
        found = {f"faces_{number}": store.fingerprint for number, store in enumerate(self.stores)}
        return found | ({"excluded": combine_hashes(dict.fromkeys(self._ids, ""))} if self._ids else {})

    @property
    def synthetic(self) -> bool:
        """Whether all stores say that their faces are drawn."""
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
        assert jpeg is not None  # rows without a picture are not in the list
        return jpeg

    def name(self, index: int) -> str:
        """Store, video, subject and frame of picture `index`, for messages."""
        store, row = self.stores[self._store[index]], self._row[index]
        return f"{store.path}: video {store.video[row]} {store.subject[row]} frame {store.frame[row]}"


def as_text(statistics: Sequence[dict[str, Any]]) -> str:
    """Statistics of a mixture for people, one line per store."""
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


@lru_cache(maxsize=16)
def _pass(seed: int, store: int, turn: int, size: int) -> np.ndarray:
    """Order of a store's pictures in one pass."""
    return np.random.default_rng((seed, store, turn)).permutation(size)


def _known(ids: Sequence[str], stores: Sequence[FacesStore], path: Path) -> list[str]:
    """The ids whose recordings a store holds; a warning names the others."""
    present = {group_of(seq.id) for store in stores for seq in store.sequences()}
    unknown = [id for id in ids if group_of(id) not in present]
    if unknown:
        print(f"warning: no store holds {len(unknown)} of the {len(ids)} ids in {path}, such as {unknown[0]!r}")
    return [id for id in ids if group_of(id) in present]


def _allowed(store: FacesStore, excluded: Sequence[str]) -> tuple[np.ndarray, int]:
    """Rows with a picture, and how many further ones belong to excluded recordings."""
    sequences = store.sequences() if excluded else []
    stay = set(without([seq.id for seq in sequences], excluded))
    allowed = np.ones(len(store), bool)
    for seq in sequences:
        allowed[seq.start : seq.start + seq.length] = seq.id in stay
    return np.flatnonzero(store.valid & allowed), int((store.valid & ~allowed).sum())


def _brightness(store: FacesStore, row: int) -> float:
    """Mean grey value of a picture, NaN if it cannot be decoded."""
    import cv2

    grey = cv2.imdecode(np.frombuffer(store.jpeg(row) or b"\0", np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_4)
    return float("nan") if grey is None else float(grey.mean())
