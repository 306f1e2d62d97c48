"""Makers and readers of binary files that users have, Parquet tables and NumPy arrays, for `benchmarks.faults_text`."""

import io
import random
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet


def cast(kind: str, cells: list[float]) -> pa.Array:
    """An array of a plain type."""
    return pa.array([round(cell) for cell in cells] if kind.startswith("int") else cells).cast(kind)


TYPES: dict[str, Callable[[list[float]], pa.Array]] = {
    **{kind: partial(cast, kind) for kind in ("float32", "float64", "string", "int8", "int64")},
    "float16": lambda cells: pa.array(np.array(cells, np.float16)),
    "with nulls": lambda cells: pa.array([None, *cells[1:]]),
    "nothing": lambda cells: pa.nulls(len(cells)),
    "not a number": lambda cells: pa.array([float("nan"), *cells[1:]]),
    "infinite": lambda cells: pa.array([float("inf"), *cells[1:]]),
    "large": lambda cells: pa.array([3.5e38, *cells[1:]]),
    "unsigned": lambda cells: pa.array([2**64 - 1] * len(cells), pa.uint64()),
    "true": lambda cells: pa.array([c > 0 for c in cells]),
    "dictionary": lambda cells: pa.array(cells).cast("string").dictionary_encode(),
    "dictionary of numbers": lambda cells: pa.array(cells).dictionary_encode(),
    "decimal": lambda cells: pa.array([Decimal(f"{c:.3f}") for c in cells]),
    "large text": lambda cells: pa.array(cells).cast("string").cast("large_string"),
    "list": lambda cells: pa.array([[c] for c in cells]),
    "struct": lambda cells: pa.array([{"a": c} for c in cells]),
    "bytes": lambda cells: pa.array([b"\xff"] * len(cells)),
    "time": lambda cells: pa.array([datetime(2020, 1, 1)] * len(cells)),
    "other digits": lambda cells: pa.array(["３"] * len(cells)),
}


def parquet_table(columns: dict[str, Callable[[random.Random], str]]) -> Callable[[random.Random], bytes]:
    """A Parquet file whose columns have usual types, but for one in most files."""

    def make(rng: random.Random) -> bytes:
        rows = rng.randint(1, 6)
        odd = rng.choice([*columns, ""])
        table = {}
        for name, cell in columns.items():
            cells: list[Any] = [*range(1, rows + 1)] if name == "frame" else [cell(rng) for _ in range(rows)]
            numeric = all(str(text).replace(".", "").lstrip("-").isdigit() for text in cells)
            if not numeric:
                table[name] = pa.array(cells)
            else:
                kind = rng.choice([*TYPES]) if name == odd else "int64" if name == "frame" else "float64"
                table[name] = TYPES[kind]([float(text) for text in cells])
        buffer = io.BytesIO()
        compression = rng.choice(["none", "snappy", "zstd"])
        parquet.write_table(pa.table(table), buffer, compression=compression, write_page_checksum=rng.random() < 0.5)
        return buffer.getvalue()

    return make


def array(rng: random.Random) -> bytes:
    """A `.npy` file."""
    kind = rng.choice(["f2", "f4", "f8", "i1", "u8", "?", ">f4", "c8", "S3", "U3", "M8[s]", "O", "f4,i4", "V4"])
    shape = rng.choice([(), (4,), (4, 3), (0, 3), (4, 0), (2, 2, 2), (3, 4)])
    made = np.zeros(shape, kind)
    buffer = io.BytesIO()
    np.save(buffer, np.asfortranarray(made) if rng.random() < 0.3 else made)
    return buffer.getvalue()


def finite(values: Any) -> Any:
    """What a reader took from a damaged table must be in range, if it is taken."""
    assert all(-1 <= value <= 1 for value in values)
    return values
