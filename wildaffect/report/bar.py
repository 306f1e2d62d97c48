"""Progress bars: drawn on a terminal, and a line now and then in a pipe or a log."""

import sys
from typing import Any, TextIO

from tqdm import tqdm

LOG_EVERY = 60.0
"""Seconds between the lines of a log. Shorter work is silent there."""


class Lines:
    """A file in which a bar does not overwrite itself: each of its states is a line."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> None:
        """Write a state of the bar; without text it would only move the cursor."""
        if text.strip():
            self.file.write(f"{text.strip()}\n")

    def flush(self) -> None:
        """As of a file."""
        self.file.flush()


def progress_bar(*args: Any, **kwargs: Any) -> "tqdm[Any]":
    """A tqdm bar on standard error; the arguments are those of tqdm."""
    if not sys.stderr.isatty():
        kwargs |= {"file": Lines(sys.stderr), "mininterval": LOG_EVERY, "delay": LOG_EVERY}
    return tqdm(*args, **kwargs)
