"""Leaves out the drawing of figures, which would take most of the time of a small run."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from wildaffect.report import page

PICTURE = page.png(np.zeros((2, 2, 3), np.uint8))


@contextmanager
def figures_left_out() -> Iterator[None]:
    """Figures are made, but a picture of nothing stands in the reports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "png", lambda _image: PICTURE)
        yield
