"""How numbers are written for people, in pages and on the terminal: one form everywhere."""

from collections.abc import Mapping
from typing import Any

import numpy as np

PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def text_of(value: Any) -> str:
    """Any value of a table: numbers by :func:`number`, None as a dash, and the items of collections one by one."""
    if value is None:
        return "–"
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return number(value.item() if isinstance(value, np.number) else value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {text_of(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(text_of, value))
    return str(value)


def number(value: float) -> str:
    """`5,016`, `0.071`, `29.97`, `1.5e-04`: counts in full, scores to three decimals, no digits that say nothing."""
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    size = abs(value)
    if 0 < size < 0.0005:
        return f"{value:.1e}"
    if size < 3:  # scores, even the sum of three
        return f"{value:.3f}"
    return f"{value:,.2f}".rstrip("0").rstrip(".") if size < 1000 else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """`0.4 s`, `45 s`, `12 min`, `3 h 20 min`."""
    if 0.05 <= seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def scaled(value: float, unit: str) -> str:
    """Three digits and a prefix of the SI, as in `2.31 TFLOP`."""
    place = 0
    while abs(value) >= 999.5 and place < len(PREFIXES) - 1:
        value, place = value / 1000, place + 1
    return f"{value:.3g} {PREFIXES[place]}{unit}"
