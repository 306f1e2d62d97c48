"""Finds near-duplicates across faces stores by perceptual hash; FER2013 and FER+, for example, share their pictures."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import cv2
import numpy as np

from checkpoints.reading import read_npy
from preprocessing.faces import FacesStore
from wildaffect.report.bar import progress_bar

BITS = 64
MOST = 3
"""Bits in which the hashes of two near-duplicates may differ; docs/pretrain.md says what this finds."""
_BANDS = tuple(np.uint64(shift) for shift in range(0, BITS, BITS // (MOST + 1)))
_LOW = np.uint64((1 << BITS // (MOST + 1)) - 1)
_CHUNK = 1 << 14


def perceptual_hash(jpeg: bytes) -> int:
    """64-bit perceptual hash (pHash, Zauner 2010): which of the lowest frequencies exceed their median.

    Scaling, compression, removing colour and changing brightness hardly change it. A picture that cannot be decoded has
    hash 0.
    """
    grey = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE) if jpeg else None
    if grey is None:
        return 0
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    frequencies = cv2.dct(small)[:8, :8].ravel()
    return int(np.packbits(frequencies > np.median(frequencies[1:])).view(">u8")[0])


def store_hashes(store: FacesStore) -> np.ndarray:
    """Hashes of the pictures of all rows, `[N]` uint64; 0 for rows without a picture.

    They are kept beside the memory-mapped copy of the store.
    """
    name = f"phash-{store.fingerprint[:16]}.npy"
    if (store.copy_folder / name).exists():
        return read_npy(store.copy_folder / name)
    hashes = np.zeros(len(store), np.uint64)
    rows = np.flatnonzero(store.valid)
    parts = np.array_split(rows, len(rows) // 1024 + 1)
    with ThreadPoolExecutor() as pool:
        for part in progress_bar(parts, f"hashing {store.path.name}", unit="k", delay=5):
            hashes[part] = [*pool.map(lambda row: perceptual_hash(store.jpeg(row) or b""), part.tolist())]
    buffer = BytesIO()  # numpy's own writer does not say that a disk is full
    np.save(buffer, hashes)
    store.keep(name, buffer.getvalue())
    return hashes


def duplicates_of(earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
    """Find the later hashes that are within `MOST` bits of an earlier one.

    Two hashes that differ in at most three bits agree in at least one of four bands of 16 bits, so only pairs with a
    band in common are compared. Hash 0 (no readable picture) is never a duplicate.

    Args:
        earlier: `[N]` uint64.
        later: `[M]` uint64.

    Returns:
        `[M]` bool.
    """
    found = np.zeros(len(later), bool)
    earlier = np.unique(earlier[earlier != 0])
    for shift in _BANDS:
        band = (earlier >> shift) & _LOW
        order = np.argsort(band, kind="stable")
        band, there = band[order], earlier[order]
        for start in range(0, len(later), _CHUNK):
            part = later[start : start + _CHUNK]
            mine = (part >> shift) & _LOW
            first, last = np.searchsorted(band, mine, "left"), np.searchsorted(band, mine, "right")
            counts = last - first
            place = np.repeat(np.arange(len(part)), counts)
            partner = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
            alike = np.bitwise_count(there[partner] ^ part[place]) <= MOST
            found[start + place[alike]] = True
    return found & (later != 0)


def duplicates_across(hashes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each store, mark the pictures that an earlier store has already, `[N]` bool.

    Pictures of the same store are not compared, since neighbouring frames of a video are always near-duplicates.
    """
    kept: list[np.ndarray] = []
    found = []
    for part in hashes:
        same = duplicates_of(np.concatenate(kept), part) if kept else np.zeros(len(part), bool)
        found.append(same)
        kept.append(part[~same])
    return found
