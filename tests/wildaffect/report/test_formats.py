import numpy as np
import pytest

from wildaffect.report.formats import duration, scaled, text_of


@pytest.mark.parametrize(
    "value, text",
    [
        (5016, "5,016"),
        (np.int64(19200), "19,200"),
        (0.07084387615323066, "0.071"),
        (12.0, "12"),
        (29.97002997, "29.97"),
        (1234.56, "1,235"),
        (-0.5, "-0.500"),
        (0.0, "0.000"),
        (1.5e-4, "1.5e-04"),
        (np.float32(0.25), "0.250"),
        (None, "–"),
        (True, "True"),
        ((0.9, 0.95), "0.900, 0.950"),
        ({"depth": 12, "rate": 0.123456}, "depth: 12, rate: 0.123"),
        ([], ""),
        (float("nan"), "nan"),
    ],
)
def test_a_number_has_one_form(value, text):
    assert text_of(value) == text


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0.04, "0 s"),
        (9.14, "9.1 s"),
        (9.96, "10 s"),
        (99, "99 s"),
        (100, "2 min"),
        (3590, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("value, text", [(1.5e9, "1.5 GFLOP"), (6e15, "6 PFLOP"), (999.6, "1 kFLOP"), (12, "12 FLOP")])
def test_a_quantity_has_the_prefix_that_fits(value, text):
    assert scaled(value, "FLOP") == text
