"""Text, numbers, lists and arrays that others wrote, read strictly. Every reader of a user's file starts here.

Text is UTF-8, with or without a byte-order mark, and holds no control characters. Numbers are ASCII decimals. Hidden
files are passed over. What is refused is named by file and line, with long values shortened.
"""

from __future__ import annotations

import csv
import json
import re
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.decimals import decimal
from checkpoints.errors import UserError

LONGEST_NAME = 200
"""Characters of an id, which names files."""
EMPTY = ("", "na", "n/a", "nan", "null", "none", "<na>")
"""Cells that hold nothing, in lower case, as pandas and spreadsheets write them."""
_NUMERIC = b"0123456789+-.eE, \t\n"
_CONTROL = bytes({*range(32), 127} - {*b"\t\n\r"})
NPY_FAULTS = (
    *(OSError, ValueError, EOFError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError, KeyError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError),
)
"""What numpy raises when it reads damaged arrays and archives of them."""

Refuse = Callable[[int, str, str], UserError]
"""Makes the error about a cell from its row (from 0), the name of its column, and what is wrong with it."""


def in_lines(path: Path, first: int = 2) -> Refuse:
    """Errors about the lines of a text file whose row 0 stands in line `first`."""

    def refuse(row: int, column: str, problem: str) -> UserError:
        return UserError(f"{path}, line {row + first}{f', column {column}' if column else ''}: {problem}")

    return refuse


def shown(value: object, most: int = 60) -> str:
    """A value as it stands in a message: quoted if it is text, and shortened."""
    text = repr(value[: most + 1] if isinstance(value, str) else value)
    return text if len(text) <= most + 2 else f"{text[:most]}..."


def decode_text(data: bytes, where: object) -> str:
    """UTF-8 text without its byte-order mark, whatever its line ends, with single line feeds.

    Raises:
        UserError: It is not such a text, or holds control characters; `where` is part of the message.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{where}, line {line}: this is not UTF-8 text: save the file as UTF-8") from None
    if len(data.translate(None, _CONTROL)) != len(data):
        place = next(place for place, byte in enumerate(data) if byte in _CONTROL)
        line = data.count(b"\n", 0, place) + 1
        raise UserError(f"{where}, line {line}: a control character ({data[place]:#04x}) in a text: save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        UserError: It cannot be read, or see :func:`decode_text`.
    """
    try:
        if Path(path).is_char_device():  # which may never end
            raise UserError(f"{path} is a device: expected a file")
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    return decode_text(data, path)


def need_file(path: Path, remedy: str) -> None:
    """Check that a path is a file.

    Raises:
        UserError: It is not, or does not exist; `remedy` says what to do.
    """
    if not path.is_file():
        raise UserError(f"{path} {'is not a file' if path.exists() else 'does not exist'}: {remedy}")


def read_lines(path: Path) -> list[str]:
    """Lines of a text file without blank ones at its end.

    Raises:
        UserError: See :func:`read_text`.
    """
    lines = read_text(path).split("\n")
    while lines and not lines[-1].strip(" \t"):
        lines.pop()
    return lines


def first_line(path: Path) -> str:
    """Start of a file's first line, to find out what the file is; never an error."""
    try:
        with Path(path).open("rb") as file:
            return file.readline(1000).decode("utf-8-sig", errors="replace").strip()
    except OSError:
        return ""


def visible(paths: Iterable[Path]) -> list[Path]:
    """Paths in order, without hidden files and the `._NAME` files that macOS puts beside others."""
    return sorted(path for path in paths if not path.name.startswith("."))


def parse_json(text: str, where: object) -> Any:
    """Content of a JSON text.

    Raises:
        UserError: It is not JSON, has a key twice, or is nested absurdly; `where` is part of the message.
    """
    try:
        content = json.loads(text, object_pairs_hook=_object)
        if "\\u" in text:
            json.dumps(content, ensure_ascii=False).encode()  # refuses half a surrogate pair, which cannot be printed
    except RecursionError:
        raise UserError(f"{where} cannot be read as JSON: it is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{where} cannot be read as JSON: {error}") from None
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {shown(next(key for key in keys if keys.count(key) > 1))} appears twice")
    return content


def parse_rows(lines: Sequence[str], columns: Sequence[str], refuse: Refuse) -> np.ndarray:
    """Comma-separated decimals, `[len(lines), len(columns)]` float64.

    Raises:
        UserError: Made by `refuse`: a line has another number of cells, or a cell is not a finite decimal number.
    """
    width = len(columns)
    if not lines:
        return np.zeros((0, width))
    text = "\n".join(lines)
    # What has none but these characters, numpy reads as `decimal` does, only more quickly.
    if text.isascii() and not text.encode().translate(None, _NUMERIC) and max(map(len, lines)) <= width * 24:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                numbers = np.loadtxt(lines, delimiter=",", ndmin=2, comments=None)
            if numbers.shape == (len(lines), width) and np.isfinite(numbers).all():
                return numbers
        except (ValueError, UserWarning):
            pass
    numbers = np.empty((len(lines), width))
    for row, line in enumerate(lines):  # slow: finds the fault, or reads unusually long numbers
        cells = line.split(",")
        if len(cells) != width:
            raise refuse(row, "", f"expected {width} comma-separated number(s), found {shown(line)}")
        for column, cell in enumerate(cells):
            number = decimal(cell)
            if number is None:
                raise refuse(row, columns[column], f"{shown(cell)} is not a number")
            numbers[row, column] = number
    return numbers


def read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """Names of the columns, without spaces around them, and rows of a CSV file (UTF-8, commas) without empty ones.

    Raises:
        UserError: It is not such a file, has no line with names, or a row has another number of cells.
    """
    try:
        rows = [row for row in csv.reader(read_lines(path), strict=True) if row]
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as CSV: {error}") from None
    if not rows:
        raise UserError(f"{path} is empty: expected a line with the names of the columns")
    header, *rows = rows
    if len(header) == 1 and re.search(r"[;\t|]", header[0]):
        raise UserError(
            f"{path}, line 1: the columns are not separated by commas: save the table with commas between the columns "
            "and points in decimal numbers"
        )
    names = [name.strip() for name in header]
    if any(decimal(name) is not None for name in names) and all(
        decimal(name) is not None or name.lower().lstrip("+-") in (*EMPTY, "inf") for name in names
    ):
        raise UserError(f"{path}, line 1: it holds numbers, expected the names of the columns")
    if any(len(name) > LONGEST_NAME for name in names):
        raise UserError(f"{path}, line 1: expected the names of the columns, found {shown(','.join(names))}")
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise UserError(f"{path}, row {number + 1}: {len(row)} cells under {len(names)} column names")
    return names, rows


def read_npy(path: Path) -> np.ndarray:
    """The array in a `.npy` file; nothing in it is executed.

    Raises:
        UserError: It is not such a file, or is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that Python 2 wrote the file
            values = np.load(path, allow_pickle=False)
        if not isinstance(values, np.ndarray):
            raise ValueError("it is an archive of arrays")
    except NPY_FAULTS as error:
        raise UserError(f"{path} cannot be read as an array: {shown(str(error), 100)}") from None
    return values
