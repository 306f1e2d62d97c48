"""From action units to the shapes of a morphable model, and random faces with independent action units."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from checkpoints.errors import UserError
from synthwild.morphable import MorphableModel
from synthwild.people import Action, Array
from synthwild.process import PROTOTYPES
from wildaffect.tasks import AUS

#: Weight of each shape at full intensity. Above 1 where the model's shape is weaker than the movement on real faces.
SHAPES: dict[str, dict[str, float]] = {
    "AU1": {"browInnerUp": 1.35},
    "AU2": {"browOuterUp": 1.2},
    "AU4": {"browDown": 1.6},
    "AU5": {"eyeWide": 1.0},
    "AU6": {"cheekSquint": 1.3, "cheekRaiser": 0.8},
    "AU7": {"eyeSquint": 1.8, "eyeBlink": 0.12},
    "AU9": {"noseSneer": 1.1},
    "AU10": {"mouthUpperUp": 1.2},
    "AU12": {"mouthSmile": 1.2, "mouthDimple": 0.15, "mouthStretch": 0.1},
    "AU14": {"mouthDimple": 1.0},
    "AU15": {"mouthFrown": 1.5},
    "AU17": {"mouthShrugLower": 0.8},
    "AU18": {"mouthPucker": 0.8},
    "AU20": {"mouthStretch": 1.0},
    "AU22": {"mouthFunnel": 0.8},
    "AU23": {"mouthRollUpper": 0.8, "mouthRollLower": 0.8, "mouthPucker": 0.45, "mouthPress": 0.2},
    "AU24": {"mouthPress": 1.5, "mouthRollUpper": 0.2, "mouthRollLower": 0.2, "mouthShrugLower": 0.25},
    "AU25": {"mouthLowerDown": 0.7, "mouthUpperUp": 0.12, "jawOpen": 0.07},
    "AU26": {"jawOpen": 0.75},
    "AU43": {"eyeBlink": 1.0},
}
#: Standard deviations of the resting differences between people, which no label knows.
RESTING = {
    "mouthSmile": 0.06,
    "mouthFrown": 0.06,
    "browDown": 0.08,
    "browInnerUp": 0.06,
    "browOuterUp": 0.05,
    "eyeSquint": 0.08,
    "cheekSquint": 0.05,
    "mouthPress": 0.08,
    "eyeBlink": 0.08,
}
NUISANCE = {"jawLeft": 0.06, "jawRight": 0.06, "mouthLeft": 0.04, "mouthRight": 0.04, "jawForward": 0.06}
UNLABELLED = ("AU5", "AU9", "AU14", "AU17", "AU18", "AU20", "AU22")
GAPS = ((61, 67), (62, 66), (63, 65))  # inner lips, upper and lower, in the 68 landmarks


@dataclass(frozen=True)
class Muscles:
    """How one person's face moves.

    Attributes:
        names: of the model's shapes.
        strength: ``[E]`` factor of each shape: the sides differ, and so do people's ways to make an action unit.
        rest: ``[E]`` weights of the resting face.
    """

    names: tuple[str, ...]
    strength: Array
    rest: Array

    def weights(self, action: Action, extra: Mapping[str, float] | None = None) -> Array:
        """Weights of the shapes ``[E]`` for what a face does, and for shapes named in ``extra``."""
        total = dict.fromkeys(self.names, 0.0)
        units = {name: float(value) for name, value in action.au.items() if value > 0}
        units["AU18"] = units.get("AU18", 0.0) + action.rounding
        for unit, intensity in units.items():
            for shape, gain in SHAPES[unit].items():
                for name in sides(shape, self.names):
                    total[name] += gain * intensity
        for shape, weight in (extra or {}).items():
            for name in sides(shape, self.names):
                total[name] += weight
        right, down = 0.7 * action.gaze[0], 0.6 * action.gaze[1]
        for side, out, into in (("L", "Out", "In"), ("R", "In", "Out")):
            looks = {out: right, into: -right, "Down": down, "Up": -down}
            for where, weight in looks.items():
                total[f"eyeLook{where}_{side}"] += max(weight, 0.0)
        found = np.array([total[name] for name in self.names]) * self.strength + self.rest
        for blink in (self.names.index(name) for name in sides("eyeBlink", self.names)):
            found[blink] = np.clip(found[blink], -0.15, 1.0)
        jaw = self.names.index("jawOpen")
        found[jaw] = min(found[jaw], 1.0)
        return found


def sides(shape: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The model's shapes of that name: one, or the left and right one.

    Raises:
        UserError: The model has none.
    """
    found = tuple(name for name in (shape, f"{shape}_L", f"{shape}_R") if name in names)
    if not found:
        raise UserError(f"the face model has no shape {shape}: make it from a complete clone of ICT-FaceKit")
    return found


def random_muscles(rng: np.random.Generator, model: MorphableModel) -> Muscles:
    """Draw how a person's face moves.

    Raises:
        UserError: The model lacks a shape.
    """
    names = model.expression_names
    strength, rest = np.ones(len(names)), np.zeros(len(names))
    for shape in sorted({shape for shapes in SHAPES.values() for shape in shapes}):
        both = rng.uniform(0.85, 1.1)
        weak = rng.integers(2) if rng.random() < 0.08 else -1
        found = sides(shape, names)
        for k, name in enumerate(found):
            strength[names.index(name)] = (
                both * rng.uniform(0.92, 1.08) * (rng.uniform(0.3, 0.7) if k == weak and len(found) == 2 else 1)
            )
    for shape, spread in RESTING.items():
        value = rng.normal(0, spread)
        for name in sides(shape, names):
            rest[names.index(name)] = value
    return Muscles(names, strength, rest)


def random_action(rng: np.random.Generator) -> tuple[Action, dict[str, float]]:
    """Draw what a face does: in a third of the cases an emotion's action units, in most others independent ones.

    Returns:
        The action, and weights of shapes that no label knows.
    """
    units: dict[str, float] = {}
    kind = rng.random()
    if kind < 0.33:
        force = rng.uniform(0.25, 1.1)
        for name, weight in PROTOTYPES[rng.integers(1, len(PROTOTYPES))].items():
            if rng.random() < 0.9:
                units[name] = weight * force * rng.uniform(0.5, 1.3)
    elif kind < 0.9:  # the rest are neutral
        often = dict.fromkeys(AUS, 0.22) | {"AU24": 0.3}  # parted lips often exclude pressed ones
        units = {name: rng.uniform(0.1, 1.05) for name in AUS if rng.random() < often[name]}
        units |= {name: rng.uniform(0.1, 0.9) for name in UNLABELLED if rng.random() < 0.06}
    if rng.random() < 0.15:  # speech
        units["AU25"] = max(units.get("AU25", 0.0), rng.uniform(0.1, 0.9))
        units["AU26"] = max(units.get("AU26", 0.0), rng.uniform(0, 0.7))
        units["AU22"] = rng.uniform(0, 0.6)
    units = {name: min(value, 1.05) for name, value in units.items()}
    without_conflicts(rng, units)
    if rng.random() < 0.08:
        units["AU43"] = rng.uniform(0.5, 1)
    extra = {name: rng.uniform(0, 0.4) for name, share in NUISANCE.items() if rng.random() < share}
    if rng.random() < 0.06:
        extra["cheekPuff"] = rng.uniform(0, 0.6)
    gaze = np.clip(rng.normal(0, 0.4, 2), -0.9, 0.9)
    return Action(units, (float(gaze[0]), float(gaze[1])), rng.uniform(0, 0.5) if rng.random() < 0.08 else 0.0), extra


def without_conflicts(rng: np.random.Generator, units: dict[str, float]) -> None:
    """Drop one of two action units that one mouth cannot show together."""
    for one, other, share in (
        ("AU24", "AU26", 1.0),
        ("AU24", "AU25", 1.0),
        ("AU23", "AU26", 0.8),
        ("AU12", "AU15", 0.6),
    ):
        if one in units and other in units and rng.random() < share:
            del units[one if rng.random() < 0.5 else other]


def visible_intensities(action: Action, weights: Array, names: tuple[str, ...], points: Array) -> Array:
    """Intensities ``[12]`` in 0..1 that a picture shows.

    What other action units do is counted: a wrinkled nose lifts the upper lip; AU25 is the gap between the lips and
    AU26 the opening of the jaw, whatever moved them.

    Args:
        action: what the face does.
        weights: of the shapes ``[E]``.
        names: of the shapes.
        points: the 68 landmarks ``[68, 3]`` of the moved mesh.
    """
    found = {name: action[name] for name in AUS}
    found["AU10"] = max(found["AU10"], 0.9 * action["AU9"])
    found["AU4"] = max(found["AU4"], 0.25 * action["AU9"])
    eyes = np.linalg.norm(points[36:42].mean(0) - points[42:48].mean(0))
    gap = np.mean([np.linalg.norm(points[a] - points[b]) for a, b in GAPS]) / eyes
    # Pressed lips roll inwards, which moves their landmarks apart. Lips that AU25 parts alone reach about 0.8.
    found["AU25"] = (gap - 0.07 * action["AU24"] - 0.02) / 0.11
    found["AU26"] = 1.3 * float(weights[names.index("jawOpen")])
    return np.clip([found[name] for name in AUS], 0, 1)
