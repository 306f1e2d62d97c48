"""Progress of long work: the type of the callback, and progress bars on the terminal."""

import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

Progress = Callable[[str, int, int], None]
"""Called with the name of the step, the number of units done and the total (0: unknown)."""


class Bars:
    """Shows the steps of a clip as progress bars on a terminal."""

    def __init__(self, name: str) -> None:
        self.name, self.step = name, ""
        self.bar: tqdm[Any] | None = None

    def __enter__(self) -> Progress:
        return self._show

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def _show(self, step: str, done: int, total: int) -> None:
        if step != self.step:
            self.__exit__()
            self.step = step
            name, hidden = f"{self.name}: {step}", not sys.stderr.isatty()
            self.bar = tqdm(desc=name, total=total or None, unit=" pictures", leave=False, disable=hidden)
        assert self.bar is not None
        self.bar.update(done - self.bar.n)
