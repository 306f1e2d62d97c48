"""Arrays as long as a clip, kept in unnamed files: their pages leave memory when something else needs it."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

ROWS = 4096
"""Rows copied at a time."""


def scratch_array(rows: int, width: int, folder: Path | None = None) -> np.ndarray:
    """Zeros `[rows, width]` float16, at least `[1, 1]`, in a file that disappears with the array.

    The file is in `folder`, or in the folder of temporary files if `folder` cannot be written.

    Raises:
        OSError: The disk is full.
    """
    place = folder if folder is not None and os.access(folder, os.W_OK) else Path(tempfile.gettempdir())
    with tempfile.TemporaryFile(dir=place) as file:
        if hasattr(os, "posix_fallocate"):  # the kernel would kill a process that writes to a page without a disk block
            try:
                os.posix_fallocate(file.fileno(), 0, max(1, 2 * rows * width))
            except OSError as error:
                error.filename = str(place)
                raise
        return np.memmap(file, np.float16, "w+", shape=(rows, width))


def side_by_side(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """`[N, sum of D]` from arrays `[N, D]`; a single one is returned as it is."""
    if len(arrays) == 1:
        return arrays[0]
    joined = scratch_array(len(arrays[0]), sum(array.shape[1] for array in arrays))
    for part in parts(len(joined)):
        joined[part] = np.concatenate([array[part] for array in arrays], axis=1)
    return joined


def parts(rows: int) -> Iterator[slice]:
    """Slices of `ROWS` rows that cover an array."""
    return (slice(start, min(start + ROWS, rows)) for start in range(0, rows, ROWS))
