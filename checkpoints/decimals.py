"""Numbers as texts say them, in files and on command lines: ASCII decimals, and nothing else that Python would take."""

import re

LAST_FRAME = 9_999_999
"""Highest frame number: 92 hours at 30 frames per second. Higher ones are faults, and would fill the memory."""
WHOLE = r"0{0,33}(?P<number>[0-9]{1,7})"
"""What :func:`whole_number` takes, as a part of a pattern that reads a column of texts at once."""
_LONGEST = 40
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)


def decimal(text: str) -> float | None:
    """The finite number that a text says in ASCII decimals; None for any other text."""
    text = text.strip(" \t")
    if len(text) > _LONGEST or not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if abs(number) < float("inf") else None


def whole_number(text: str, most: int = LAST_FRAME) -> int | None:
    """The number from 0 to `most` that ASCII digits say; None for any other text."""
    if len(text) > _LONGEST or not (text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if number <= most else None
