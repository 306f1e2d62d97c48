"""Who a synthetic person is, what the face does and where it looks: the values that a drawing needs.

Face coordinates: x to the right, y down, origin on the nose bridge; one unit is half the width of an average face.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

#: Movements that are drawn but never labelled: lid raise, nose wrinkle, lip stretch, eyes closed.
HIDDEN_AUS = ("AU5", "AU9", "AU20", "AU43")

SKINS = (
    (184, 204, 240),
    (168, 190, 232),
    (150, 180, 226),
    (120, 158, 212),
    (95, 130, 190),
    (72, 104, 160),
    (52, 78, 126),
)
HAIRS = (
    (22, 20, 24),
    (28, 36, 52),
    (34, 52, 84),
    (40, 70, 120),
    (92, 148, 196),
    (150, 190, 222),
    (150, 150, 152),
    (36, 62, 128),
)
HAIR_STYLES = {"short": 0.26, "long": 0.22, "bald": 0.1, "curly": 0.12, "bun": 0.1, "fringe": 0.12, "cap": 0.08}
IRISES = ((40, 60, 90), (60, 90, 110), (110, 90, 50), (140, 120, 80), (90, 120, 70), (35, 35, 45))


@dataclass(frozen=True)
class Identity:
    """Everything about a face that does not change during a video; colours are BGR."""

    skin: Array
    hair: Array
    iris: Array
    lips: Array
    cloth: Array
    width: float
    jaw: float
    chin: float
    eye_gap: float
    eye_size: float
    eye_tilt: float
    brow_height: float
    brow_thick: float
    brow_tilt: float
    nose_width: float
    nose_length: float
    mouth_width: float
    lip_thick: float
    mouth_curve: float
    hair_style: str
    hairline: float
    beard: float
    moustache: float
    glasses: str
    age: float
    freckles: Array


@dataclass(frozen=True)
class Pose:
    """Where a head is: centre in pixels, scale in pixels per face unit, angles in radians."""

    x: float
    y: float
    scale: float
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0


@dataclass(frozen=True)
class Landmarks:
    """True geometry of a drawn face in pixels: points ``[5, 2]`` (eyes, nose, mouth corners) and box ``[4]``."""

    points: Array
    box: Array


@dataclass
class Action:
    """What a face does in one frame: intensities (0 rest, 1 full) by name, gaze in eye half-widths, lip rounding."""

    au: Mapping[str, float] = field(default_factory=dict)
    gaze: tuple[float, float] = (0.0, 0.0)
    rounding: float = 0.0

    def __getitem__(self, name: str) -> float:
        return self.au.get(name, 0.0)


def random_identity(rng: np.random.Generator) -> Identity:
    """Draw a person at random."""
    between = rng.uniform
    skin = np.array(SKINS[rng.integers(len(SKINS))]) * between(0.88, 1.06) + rng.normal(0, 4, 3)
    hair = np.array(HAIRS[rng.integers(len(HAIRS))]) * between(0.8, 1.2)
    red = np.array([90.0, 70.0, 175.0]) * between(0.7, 1.1)
    male = rng.random() < 0.5
    return Identity(
        skin=np.clip(skin, 25, 248),
        hair=np.clip(hair, 8, 240),
        iris=np.array(IRISES[rng.integers(len(IRISES))], float),
        lips=np.clip(skin * 0.62 + red * between(0.22, 0.42), 20, 230),
        cloth=rng.uniform(20, 235, 3),
        width=between(0.90, 1.08),
        jaw=between(0.62, 0.95),
        chin=between(1.20, 1.36),
        eye_gap=between(0.385, 0.45),
        eye_size=between(0.19, 0.24),
        eye_tilt=between(-0.03, 0.035),
        brow_height=between(-0.41, -0.34),
        brow_thick=between(0.05, 0.11),
        brow_tilt=between(-0.04, 0.04),
        nose_width=between(0.15, 0.24),
        nose_length=between(0.34, 0.44),
        mouth_width=between(0.33, 0.43),
        lip_thick=between(0.055, 0.11),
        mouth_curve=between(-0.035, 0.035),
        hair_style=str(rng.choice([*HAIR_STYLES], p=[*HAIR_STYLES.values()])),
        hairline=between(-0.98, -0.82),
        beard=between(0.3, 0.65) if male and rng.random() < 0.35 else 0.0,
        moustache=between(0.4, 0.85) if male and rng.random() < 0.25 else 0.0,
        glasses=str(rng.choice(["", "round", "square"], p=[0.8, 0.1, 0.1])),
        age=float(rng.beta(1.2, 2.5)),
        freckles=rng.uniform([-0.6, 0.0], [0.6, 0.5], (rng.integers(*(6, 14) if rng.random() < 0.2 else (0, 3)), 2)),
    )


def mix(a: Array, b: Array | float, amount: float) -> Array:
    """Blend ``a`` towards ``b``; ``amount`` is clipped to [0, 1]."""
    amount = min(max(amount, 0.0), 1.0)
    return a * (1 - amount) + np.asarray(b) * amount


def ellipse(x: float, y: float, rx: float, ry: float, n: int = 24) -> Array:
    """Points ``[n, 2]`` on an axis-parallel ellipse."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([x + rx * np.cos(t), y + ry * np.sin(t)], 1)
