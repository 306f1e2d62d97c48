"""CSV and Parquet tables with named columns, read strictly: every error names the row, the column and the remedy."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from checkpoints.errors import UserError

EMPTY = ("", "na", "n/a", "nan", "null", "none", "<na>")
"""Cells that hold nothing, in lower case, as pandas and spreadsheets write them."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_TRUTH = {"true": True, "1": True, "1.0": True, "yes": True, "false": False, "0": False, "0.0": False, "no": False}


@dataclass(frozen=True)
class Table:
    """A table in memory.

    Attributes:
        path: Its file.
        columns: Name in lower case -> cells: an Arrow array from Parquet, a list of texts from CSV.
        names: The names as the file writes them.
        length: Number of rows.
    """

    path: Path
    columns: dict[str, Any]
    names: list[str]
    length: int

    def __contains__(self, name: str) -> bool:
        return name.lower() in self.columns

    def __len__(self) -> int:
        return self.length

    def texts(self, name: str) -> list[str]:
        """Cells as texts without spaces around them; an empty cell is ''."""
        cells = self._cells(name)
        return ["" if str(cell).strip().lower() in EMPTY else str(cell).strip() for cell in cells]

    def numbers(self, name: str) -> np.ndarray:
        """Cells as float64 `[N]`; an empty cell is NaN.

        Raises:
            UserError: A cell is not a decimal number; infinities are not.
        """
        column = self.columns[name.lower()]
        if isinstance(column, pa.ChunkedArray) and _is_numeric(column.type):
            values = column.cast(pa.float64()).to_numpy().copy()
            if infinite := np.flatnonzero(np.isinf(values)).tolist():
                raise self.error(infinite[0], name, f"{values[infinite[0]]} is not a number")
            return values
        values = np.empty(self.length)
        for row, cell in enumerate(self.texts(name)):
            if cell and not _NUMBER.fullmatch(cell):
                raise self.error(row, name, f"{cell[:40]!r} is not a number")
            values[row] = float(cell) if cell else np.nan
        return values

    def whole_numbers(self, name: str, least: int) -> np.ndarray:
        """Cells as int64 `[N]`, none of them empty or below `least` (pandas may have written 3 as 3.0).

        Raises:
            UserError: A cell is empty, not a whole number, or out of range.
        """
        values = self.numbers(name)
        bad = ~((values == np.round(values)) & (values >= least) & (values < 2**31))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            shown = "it is empty" if np.isnan(values[row]) else f"{values[row]:g} was found"
            raise self.error(row, name, f"expected a whole number from {least} on, {shown}: correct or remove the row")
        return values.astype(np.int64)

    def truths(self, name: str) -> np.ndarray:
        """Cells as bool `[N]`.

        Raises:
            UserError: A cell is neither true nor false.
        """
        values = np.empty(self.length, bool)
        for row, cell in enumerate(self.texts(name)):
            if cell.lower() not in _TRUTH:
                raise self.error(row, name, f"expected true or false, found {cell[:40]!r}")
            values[row] = _TRUTH[cell.lower()]
        return values

    def error(self, row: int, name: str, problem: str) -> UserError:
        """An error about one cell; rows count from 1, without the header."""
        return UserError(f"{self.path}, row {row + 1}, column {name}: {problem}")

    def _cells(self, name: str) -> list[Any]:
        column = self.columns[name.lower()]
        return (
            ["" if cell is None else cell for cell in column.to_pylist()]
            if isinstance(column, pa.ChunkedArray)
            else column
        )


def read_table(path: Path) -> Table:
    """Read a `.csv` (UTF-8, commas) or `.parquet` file; column names are matched in any letter case.

    Raises:
        UserError: It is neither, is damaged, or has two columns of one name.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        try:
            content = parquet.read_table(path, partitioning=None)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
        names, cells = content.column_names, content.columns
        length = content.num_rows
    elif suffix == ".csv":
        names, rows = _read_csv(path)
        cells, length = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in names], len(rows)
    else:
        raise UserError(f"{path}: a table is a .csv or .parquet file")
    keys = [name.strip().lower() for name in names]
    twice = sorted({key for key in keys if keys.count(key) > 1 and key})
    if twice:
        raise UserError(f"{path} has two columns called {twice[0]!r}")
    columns = {key: column for key, column in zip(keys, cells, strict=True) if key}
    return Table(path, columns, [name.strip() for name in names if name.strip()], length)


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, strict=True) if row]
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: save the table as UTF-8") from None
    except (OSError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not rows:
        raise UserError(f"{path} is empty: expected a line with the names of the columns")
    header, *rows = rows
    if len(header) == 1 and re.search(r"[;\t|]", header[0]):
        raise UserError(
            f"{path}, line 1: the columns are not separated by commas: save the table with commas between the columns "
            "and points in decimal numbers"
        )
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise UserError(f"{path}, row {number + 1}: {len(row)} cells under {len(header)} column names")
    return header, rows


def _is_numeric(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
