"""Ways to damage bytes, each drawn from a seeded generator."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

MEMORY = Path("/dev/shm")
WAYS = ("cut", "flip", "many flips", "zeros", "noise", "repeat", "remove", "splice", "head", "empty")


def in_memory() -> Path | None:
    """A file system in memory, where many small files cost little time; None if there is none with some space."""
    return MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4 << 30 else None


def damage(data: bytes, other: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Damage a file.

    Args:
        data: The whole file.
        other: Another file, to splice in.
        rng: Draws how and where.

    Returns:
        What was done, and the damaged bytes.
    """
    way = str(rng.choice(WAYS))
    size = max(len(data), 1)
    at = int(rng.integers(size))
    length = min(size - at, 1 + int(rng.integers(64)))
    array = bytearray(data)
    if way == "cut":
        return f"cut at {at}", data[:at]
    if way == "empty":
        return way, b"" if rng.random() < 0.2 else bytes(rng.integers(0, 256, 200, np.uint8))
    if way == "splice":
        return f"spliced at {at}", data[:at] + other[int(rng.integers(max(len(other), 1))) :]
    if way == "remove":
        return f"without {length} bytes at {at}", data[:at] + data[at + length :]
    if way == "repeat":
        return f"with {length} bytes twice at {at}", data[: at + length] + data[at:]
    if way == "head":  # where sizes and kinds stand
        at, length = int(rng.integers(min(size, 64))), 1
    if way == "zeros":
        array[at : at + length] = bytes(length)
    elif way == "noise":
        array[at : at + length] = bytes(rng.integers(0, 256, length, np.uint8))
    else:
        for place in rng.integers(size, size=50).tolist() if way == "many flips" else [at]:
            array[place % len(array)] ^= 1 << int(rng.integers(8))
    return f"{way} at {at}", bytes(array)
