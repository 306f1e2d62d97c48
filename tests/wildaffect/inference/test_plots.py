"""The still picture of a clip, by the colours that are drawn."""

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.colors import to_rgb

from wildaffect.inference.plots import edges_of, overview
from wildaffect.report.palette import EXPRESSION_COLOURS
from wildaffect.tasks import AUS, EXPRESSIONS

FAST, SLOW = np.arange(12) * 0.04, 0.48 + np.arange(13) * 0.4
RATES = {"variable": np.concatenate([FAST, SLOW]), "constant": np.arange(25) / 25}


def drawn(time_s: np.ndarray, expressions: list[str | None]) -> tuple[np.ndarray, list]:
    """Draw expressions and the action units that go with them: the pixels, and the panels."""
    face = [name is not None for name in expressions]
    columns = {"subject": [""] * len(time_s), "frame": range(1, len(time_s) + 1), "time_s": time_s, "face": face}
    columns |= {"expression": expressions, **{f"p_{name}": [0.1] * len(face) for name in EXPRESSIONS}}
    high = [None if name is None else float(name == "Sadness") for name in expressions]
    low = [None if name is None else 0.0 for name in expressions]
    columns |= {f"p_{unit}": high if unit == "AU4" else low for unit in AUS}
    figure = overview(pa.table({name: list(values) for name, values in columns.items()}), "", "clip")
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3], figure.axes


def colour_at(pixels: np.ndarray, axis, time_s: float, y: float) -> np.ndarray:
    x, up = axis.transData.transform((time_s, y)).astype(int)
    return pixels[len(pixels) - 1 - up, x] / 255


@pytest.mark.parametrize("rate", RATES)
def test_ribbon_and_action_units_are_drawn_at_the_times_of_the_frames(rate):
    time_s = RATES[rate]
    names = ["Happiness"] * 12 + ["Sadness"] * 6 + [None] * 3 + ["Anger"] * 4
    pixels, (ribbon, units, *_) = drawn(time_s, names)
    for number, name in list(enumerate(names))[1:-1]:
        shown = colour_at(pixels, ribbon, time_s[number], 0.5)
        assert np.allclose(shown, to_rgb(EXPRESSION_COLOURS[name]) if name else 1, atol=0.01), number
        on, off = (
            colour_at(pixels, units, time_s[number], len(AUS) - 0.5 - AUS.index(name)) for name in ("AU4", "AU2")
        )
        if name is None:
            assert np.allclose([on, off], to_rgb("#f4f5f7"), atol=0.01)
        else:
            assert (on[0] > 0.9) == (name == "Sadness") and off[0] < 0.1, number


def test_cells_meet_halfway_between_frames():
    assert np.allclose(edges_of(np.array([0, 0.04, 0.08, 0.48, 0.88])), [-0.11, 0.02, 0.06, 0.28, 0.68, 0.99])
    assert edges_of(np.array([3.0])).tolist() == [2.5, 3.5]
