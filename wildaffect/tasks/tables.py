"""CSV and Parquet tables with named columns, read strictly: every error names the row, the column and the remedy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from checkpoints.decimals import LAST_FRAME
from checkpoints.errors import UserError, first_words
from checkpoints.reading import EMPTY, LONGEST_NAME, parse_rows, read_csv, shown

WHOLE_FLOAT = re.compile(r"^(\d+)\.0+$", re.ASCII)
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
        """Cells as texts without spaces around them; an empty cell is ''.

        Raises:
            UserError: The column holds neither texts nor numbers.
        """
        column = self.columns[name.lower()]
        if isinstance(column, pa.ChunkedArray):
            if not _is_plain(column.type):
                raise UserError(f"{self.path}, column {name}: it holds {column.type}, expected texts or numbers")
            column = ["" if cell is None else str(cell) for cell in column.to_pylist()]
        cells = (cell.strip(" \t") for cell in column)
        return ["" if cell.lower() in EMPTY else cell for cell in cells]

    def ids(self, name: str) -> list[str]:
        """Cells that name a video or an id.

        Raises:
            UserError: A cell is empty, or no such name.
        """
        cells = self.texts(name)
        for row, cell in enumerate(cells):
            if not cell or len(cell) > LONGEST_NAME or not cell.isprintable():
                raise self.error(row, name, f"expected a name, found {shown(cell) if cell else 'nothing'}")
        return cells

    def subjects(self) -> list[str]:
        """Cells of the column `subject`, '' without one; a number that pandas wrote as 2.0 is 2."""
        if "subject" not in self:
            return [""] * len(self)
        return [WHOLE_FLOAT.sub(r"\1", cell) for cell in self.texts("subject")]

    def numbers(self, name: str) -> np.ndarray:
        """Cells as float64 `[N]`; an empty cell is NaN.

        Raises:
            UserError: A cell is not a decimal number; infinities are not.
        """
        column = self.columns[name.lower()]
        if isinstance(column, pa.ChunkedArray) and _is_numeric(column.type):
            values = column.cast(pa.float64(), safe=False).to_numpy().copy()
            if infinite := np.flatnonzero(np.isinf(values)).tolist():
                raise self.error(infinite[0], name, f"{values[infinite[0]]} is not a number")
            return values
        cells = self.texts(name)
        values = parse_rows([cell or "0" for cell in cells], [name], self.error)[:, 0]
        values[[not cell for cell in cells]] = np.nan
        return values

    def frames(self) -> np.ndarray:
        """Column `frame` as int64 `[N]`, from 1 (pandas may have written 3 as 3.0).

        Raises:
            UserError: A cell is empty, not a whole number, or out of range.
        """
        values = self.numbers("frame")
        bad = np.flatnonzero(~((values == np.round(values)) & (values >= 1) & (values <= LAST_FRAME)))
        if len(bad):
            found = "but it is empty" if np.isnan(values[bad[0]]) else f"found {values[bad[0]]:.10g}"
            wanted = f"expected a whole number from 1 to {LAST_FRAME:,}, {found}: correct or remove the row"
            raise self.error(int(bad[0]), "frame", wanted)
        return values.astype(np.int64)

    def truths(self, name: str) -> np.ndarray:
        """Cells as bool `[N]`.

        Raises:
            UserError: A cell is neither true nor false.
        """
        values = np.empty(self.length, bool)
        for row, cell in enumerate(self.texts(name)):
            if cell.lower() not in _TRUTH:
                raise self.error(row, name, f"expected true or false, found {shown(cell)}")
            values[row] = _TRUTH[cell.lower()]
        return values

    def error(self, row: int, name: str, problem: str) -> UserError:
        """An error about one cell; rows count from 1, without the header."""
        return UserError(f"{self.path}, row {row + 1}, column {name}: {problem}")


def read_table(path: Path) -> Table:
    """Read a `.csv` (UTF-8, commas) or `.parquet` file; column names are matched in any letter case.

    Raises:
        UserError: It is neither, is damaged, or has two columns of one name.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        content = _read_parquet(path)
        names, cells, length = content.column_names, content.columns, content.num_rows
    elif suffix == ".csv":
        names, rows = read_csv(path)
        cells, length = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in names], len(rows)
    else:
        raise UserError(f"{path}: a table is a .csv or .parquet file")
    keys = [name.strip().lower() for name in names]
    twice = sorted({key for key in keys if keys.count(key) > 1 and key})
    if twice:
        raise UserError(f"{path} has two columns called {shown(twice[0])}")
    columns = {key: column for key, column in zip(keys, cells, strict=True) if key}
    return Table(path, columns, [name.strip() for name in names if name.strip()], length)


def _read_parquet(path: Path) -> pa.Table:
    try:
        content = parquet.read_table(path, partitioning=None, page_checksum_verification=True)
        content.validate(full=True)
        return content
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a Parquet table: {shown(first_words(error), 200)}") from None


def _is_plain(kind: pa.DataType) -> bool:
    """Whether cells are texts or numbers."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return _is_numeric(kind) or pa.types.is_decimal(kind) or kind in (pa.string(), pa.large_string(), pa.null())


def _is_numeric(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
