"""Progress of long work: the type of the callback, and progress bars on the terminal."""

import sys
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm

Progress = Callable[[str, int, int], None]
"""Called with the name of the step, the number of units done and the total (0: unknown)."""


class Bars:
    """Shows the steps of a clip as progress bars.

    Args:
        name: Name of the clip.
        shown: Whether they are shown; None: if there is a terminal.
    """

    def __init__(self, name: str, shown: bool | None = None) -> None:
        self.name, self.step = name, ""
        self.hidden = not (sys.stderr.isatty() if shown is None else shown)
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
            name = f"{self.name}: {step}"
            self.bar = tqdm(desc=name, total=total or None, unit=" pictures", leave=False, disable=self.hidden)
        assert self.bar is not None
        self.bar.update(done - self.bar.n)
