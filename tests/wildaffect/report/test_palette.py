from itertools import combinations

import numpy as np
import pytest

from wildaffect.report.palette import AROUSAL, EXPRESSION_COLOURS, NIGHT, PAPER, VALENCE, readable_on, rgb

# Machado, Oliveira & Fernandes (2009), severity 1; Viénot, Brettel & Mollon (1999). On linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "protanopia 1999": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "deuteranopia 1999": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
MEANINGS = {**EXPRESSION_COLOURS, "valence": VALENCE, "arousal": AROUSAL}


def linear(colour: str) -> np.ndarray:
    parts = np.array(rgb(colour)) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    x, y, z = XYZ @ light / XYZ.sum(axis=1)
    fx, fy, fz = (v ** (1 / 3) if v > (6 / 29) ** 3 else v / (3 * (6 / 29) ** 2) + 4 / 29 for v in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


def ciede2000(one: np.ndarray, other: np.ndarray) -> float:
    """Sharma, Wu & Dalal (2005)."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    g = 0.5 * (1 - np.sqrt((c := (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7 / (c**7 + 25**7)))
    (c1, h1), (c2, h2) = (
        (np.hypot(a * (1 + g), b), np.degrees(np.arctan2(b, a * (1 + g))) % 360) for a, b in ((a1, b1), (a2, b2))
    )
    turn = ((h2 - h1 + 180) % 360 - 180) * (c1 * c2 > 0)
    hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    light, c, h = (l1 + l2) / 2, (c1 + c2) / 2, (h1 + turn / 2) % 360 if c1 * c2 else h1 + h2
    waves = ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.2, 4, -63))
    t = 1 + sum(size * np.cos(np.radians(times * h + shift)) for size, times, shift in waves)
    dl = (l2 - l1) / (1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2))
    dc, dh = (c2 - c1) / (1 + 0.045 * c), hue / (1 + 0.015 * c * t)
    blue = -np.sin(np.radians(60 * np.exp(-(((h - 275) / 25) ** 2)))) * 2 * np.sqrt(c**7 / (c**7 + 25**7))
    return float(np.sqrt(dl**2 + dc**2 + dh**2 + blue * dc * dh))


@pytest.mark.parametrize(
    "one, other, difference",
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.5, 0), (61, -5, 29), 22.8977),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_measure_is_that_of_its_authors(one, other, difference):
    assert ciede2000(np.array(one), np.array(other)) == pytest.approx(difference, abs=1e-4)


@pytest.mark.parametrize("vision", VISIONS)
def test_no_two_meanings_look_alike(vision):
    """Nor does one look like an empty page."""
    seen = {
        name: lab(np.clip(np.array(VISIONS[vision]) @ linear(colour), 0, 1))
        for name, colour in {**MEANINGS, "paper": PAPER, "night": NIGHT}.items()
    }
    differences = {pair: ciede2000(seen[pair[0]], seen[pair[1]]) for pair in combinations(seen, 2)}
    closest = min(differences, key=lambda pair: differences[pair])
    assert differences[closest] > 16, closest


@pytest.mark.parametrize("paper", [PAPER, NIGHT])
@pytest.mark.parametrize("curve", [VALENCE, AROUSAL])
def test_curves_stand_out_on_either_page(curve, paper):
    """By 3:1, as WCAG 2 asks of graphics."""
    low, high = sorted(float(XYZ[1] @ linear(colour)) for colour in (curve, paper))
    assert (high + 0.05) / (low + 0.05) >= 3


@pytest.mark.parametrize("name", MEANINGS)
def test_text_on_a_colour_can_be_read(name):
    low, high = sorted(float(XYZ[1] @ linear(colour)) for colour in (MEANINGS[name], readable_on(MEANINGS[name])))
    assert (high + 0.05) / (low + 0.05) >= 4.5
