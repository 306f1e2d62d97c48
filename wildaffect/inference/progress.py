"""Progress of long work: the type of the callback, one measure for a whole clip, and how the terminal shows it."""

import sys
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm

Progress = Callable[[str, int, int], None]
"""Called with the name of the step, the number of units done and the total (0: unknown)."""
STEPS = {"finding faces": 0.55, "predicting": 0.1, "annotating": 0.35}
"""The steps of a clip, and about what share of the time each takes."""


def share_of_clip(step: str, done: int, total: int) -> float:
    """How much of a whole clip is done, 0 to 1."""
    names = list(STEPS)
    before = sum(STEPS[name] for name in names[: names.index(step)])
    return before + STEPS[step] * min(done / total, 1.0) if total else before


class Bars:
    """Shows a clip's progress: one bar over all its steps on a terminal, a line for each step in a pipe or a log.

    Args:
        name: Name of the clip.
        shown: Whether it is shown at all.
    """

    def __init__(self, name: str, shown: bool = True) -> None:
        self.name, self.step, self.shown = name, "", shown
        hidden = not (shown and sys.stderr.isatty())
        form = "{desc}: {percentage:.0f}%|{bar}| {elapsed}, {remaining} left"
        self.bar: tqdm[Any] = tqdm(desc=name, total=1.0, bar_format=form, leave=False, disable=hidden)

    def __enter__(self) -> Progress:
        return self._show

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def _show(self, step: str, done: int, total: int) -> None:
        if step != self.step:
            self.step = step
            self.bar.set_description(f"{self.name}: {step}", refresh=False)
            if self.shown and self.bar.disable:
                print(f"{self.name}: {step}", file=sys.stderr, flush=True)
        self.bar.update(share_of_clip(step, done, total) - self.bar.n)
