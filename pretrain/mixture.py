"""The pictures of one or several faces stores as one numbered list."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from checkpoints.errors import UserError
from preprocessing.faces import FacesStore


class FacesMixture:
    """Every row with a picture of every store, numbered from 0.

    Args:
        paths: Faces stores.

    Raises:
        UserError: A store cannot be read, or none of them holds a picture.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.stores = [FacesStore(path) for path in paths]
        rows = [np.flatnonzero(store.valid) for store in self.stores]
        self._row = np.concatenate(rows)
        self._store = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
        if not len(self._row):
            raise UserError(f"{', '.join(map(str, paths))}: no picture with a face to train on")

    def __len__(self) -> int:
        return len(self._row)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of each store, in the order given."""
        return {f"faces_{number}": store.fingerprint for number, store in enumerate(self.stores)}

    @property
    def synthetic(self) -> bool:
        """Whether all stores say that their faces are drawn."""
        return all(store.header.get("synthetic", False) for store in self.stores)

    @property
    def videos(self) -> list[str]:
        """Names of the videos (not of single pictures) that the pictures come from."""
        return sorted({seq.video for store in self.stores for seq in store.sequences() if seq.length > 1})

    def jpeg(self, index: int) -> bytes:
        """JPEG bytes of picture `index`."""
        jpeg = self.stores[self._store[index]].jpeg(int(self._row[index]))
        assert jpeg is not None  # rows without a picture are not in the list
        return jpeg

    def name(self, index: int) -> str:
        """Store, video, subject and frame of picture `index`, for messages."""
        store, row = self.stores[self._store[index]], self._row[index]
        return f"{store.path}: video {store.video[row]} {store.subject[row]} frame {store.frame[row]}"
