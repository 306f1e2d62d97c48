"""Simulates what a synthetic person feels and does over time, and what an annotator would write down.

Valence and arousal follow an Ornstein-Uhlenbeck walk towards one emotion after another. The expression follows from
their region, with hysteresis. Action units follow the expression's EMFACS prototype times intensity, plus independent
activity (speech, flashes). The annotation of valence and arousal lags by a few frames. Time is counted in frames, so
that even short clips contain several expressions.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from synthwild.people import HIDDEN_AUS
from wildaffect.tasks import AUS

Array = NDArray[np.float64]
DRAWN = AUS + HIDDEN_AUS

#: The (valence, arousal) of each expression.
CENTRES = np.array(
    [[0.0, 0.0], [-0.7, 0.4], [-0.65, -0.1], [-0.35, 0.8], [0.65, 0.3], [-0.45, -0.55], [0.2, 0.75], [0.4, -0.45]]
)
#: EMFACS-like prototypes; "Other" is contempt and doubt: pressed lips and a raised outer brow.
PROTOTYPES: tuple[dict[str, float], ...] = (
    {},
    {"AU4": 1.0, "AU7": 0.85, "AU23": 0.9, "AU24": 0.15},
    {"AU10": 1.0, "AU9": 0.8, "AU4": 0.35, "AU15": 0.25, "AU25": 0.3},
    {"AU1": 0.95, "AU2": 0.45, "AU4": 0.65, "AU5": 0.85, "AU20": 0.9, "AU25": 0.7, "AU26": 0.15},
    {"AU6": 0.85, "AU12": 1.0, "AU25": 0.5},
    {"AU1": 0.9, "AU4": 0.45, "AU15": 1.0},
    {"AU1": 0.85, "AU2": 1.0, "AU5": 0.85, "AU25": 0.9, "AU26": 0.9},
    {"AU24": 1.0, "AU2": 0.75, "AU7": 0.35},
)
ON = 0.30  # intensity above which an annotator marks an action unit as present


@dataclass(frozen=True)
class Temper:
    """How one person's face moves: gain per drawn unit, resting bias, twitchiness, talkativeness."""

    gain: Array
    bias: Array
    flashes: float
    talk: float


@dataclass(frozen=True)
class Course:
    """One person over ``T`` frames: annotations, and what is drawn.

    Attributes:
        valence_arousal: annotated values ``[T, 2]`` in [-1, 1].
        expression: annotated class ``[T]``.
        au: annotated presence ``[T, 12]``.
        intensity: true intensity ``[T, 12]`` in 0..1, from which the presence follows.
        drawn: intensities to draw ``[T, 16]`` (the twelve and the hidden ones), including resting bias and jitter.
        gaze: direction ``[T, 2]``.
        rounding: lip rounding of speech ``[T]``.
        feeling: true valence and arousal ``[T, 2]``, which the annotation follows with a lag.
        speech: how far speech opens the mouth ``[T]``, from 0 (silence) to .9.
    """

    valence_arousal: Array
    expression: NDArray[np.int64]
    au: NDArray[np.int64]
    intensity: Array
    drawn: Array
    gaze: Array
    rounding: Array
    feeling: Array
    speech: Array


def random_temper(rng: np.random.Generator) -> Temper:
    """Draw how expressive a person is and how the resting face is biased."""
    gain = np.clip(rng.normal(0.97, 0.14, len(DRAWN)), 0.7, 1.25)
    bias = np.zeros(len(DRAWN))
    for name in ("AU1", "AU2", "AU4", "AU7", "AU12", "AU15", "AU24", "AU10"):
        if rng.random() < 0.16:
            bias[DRAWN.index(name)] = rng.uniform(0.10, 0.30)
    return Temper(gain, bias, flashes=rng.uniform(0.2, 1.0), talk=rng.uniform(0.1, 0.45))


def smooth_noise(rng: np.random.Generator, length: int, width: int, channels: int = 1) -> Array:
    """Unit-variance noise ``[T, C]`` that changes over about ``width`` frames (a walk pulled back to zero)."""
    keep = np.exp(-1.0 / width)
    steps = rng.normal(size=(length, channels)) * np.sqrt(1 - keep**2)
    out = np.empty((length, channels))
    state = rng.normal(size=channels)
    for t in range(length):
        state = keep * state + steps[t]
        out[t] = state
    return out


def follow(target: Array, rate: float) -> Array:
    """Exponential approach of ``[T, C]`` to ``target``: the onset and offset of a movement."""
    out = np.empty_like(target)
    state = target[0]
    for t in range(len(target)):
        state = state + rate * (target[t] - state)
        out[t] = state
    return out


def walk(rng: np.random.Generator, length: int, dwell: float, visits: Iterable[int]) -> Array:
    """Valence and arousal ``[T, 2]``: an Ornstein-Uhlenbeck walk around goals that change every ``dwell`` frames."""
    goals = np.empty((length, 2))
    start = 0
    order = cycle(visits)
    while start < length:
        goal = CENTRES[next(order)] * rng.uniform(0.8, 1.2) + rng.normal(0, 0.07, 2)
        end = start + int(rng.uniform(0.6, 1.6) * dwell) + 2
        goals[start:end] = goal
        start = end
    noise = smooth_noise(rng, length, 3, 2) * 0.05
    out = np.empty((length, 2))
    state = goals[0] * rng.uniform(0.3, 1.0)
    for t in range(length):
        state = state + 0.32 * (goals[t] - state) + noise[t]
        out[t] = state
    return np.clip(out, -0.99, 0.99)


def regions(va: Array) -> NDArray[np.int64]:
    """Nearest expression ``[T]``; it changes only if another one is nearer by 0.15 (hysteresis)."""
    distance = np.linalg.norm(va[:, None] - CENTRES[None], axis=2)
    out = np.empty(len(va), np.int64)
    state = int(distance[0].argmin())
    for t, row in enumerate(distance):
        best = int(row.argmin())
        if row[best] + 0.15 < row[state]:
            state = best
        out[t] = state
    return out


def prototype_course(rng: np.random.Generator, va: Array, expression: NDArray[np.int64], temper: Temper) -> Array:
    """Intensities ``[T, 16]`` of the expression's units; each visit drops some units and varies the others."""
    out = np.zeros((len(va), len(DRAWN)))
    strength = np.clip(0.45 + 0.65 * np.linalg.norm(va, axis=1), 0, 1.1)
    starts = np.flatnonzero(np.diff(expression, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(va)], strict=True):
        for name, weight in PROTOTYPES[expression[start]].items():
            k = DRAWN.index(name)
            vary = 0.0 if rng.random() < 0.05 else np.clip(rng.normal(1, 0.16), 0.5, 1.3)
            out[start:end, k] = weight * vary * temper.gain[k] * strength[start:end]
    return follow(out, 0.6)


def own_activity(rng: np.random.Generator, length: int, temper: Temper) -> tuple[Array, Array, Array]:
    """Activity unrelated to the expression: flashes, blinks and speech ``[T, 16]``; lip rounding; speech alone."""
    extra = np.zeros((length, len(DRAWN)))
    for group in ("AU1 AU2", "AU4", "AU12", "AU7", "AU6 AU7", "AU24", "AU23", "AU10", "AU15"):
        for _ in range(rng.poisson(temper.flashes * length / 80)):
            at, span, peak = rng.integers(length), rng.integers(1, 5), rng.uniform(0.4, 0.95)
            for name in group.split():
                extra[at : at + span, DRAWN.index(name)] = peak
    extra = follow(extra, 0.75)
    for at in np.flatnonzero(rng.random(length) < 0.03):
        extra[at : at + 2, DRAWN.index("AU43")] = rng.uniform(0.7, 1.0)
    talking = (smooth_noise(rng, length, 12)[:, 0] < np.quantile(rng.normal(size=512), temper.talk)).astype(float)
    syllable = np.abs(smooth_noise(rng, length, 2, 3))
    speech = talking * np.clip(0.15 + 0.6 * syllable[:, 0], 0, 0.9)
    extra[:, DRAWN.index("AU25")] += speech
    extra[:, DRAWN.index("AU26")] += talking * np.clip(0.45 * syllable[:, 1] - 0.1, 0, 0.7)
    rounding = talking * np.clip(0.8 * syllable[:, 2] - 0.3, 0, 0.9)
    return extra, rounding, speech


def simulate(rng: np.random.Generator, length: int, temper: Temper, dwell: float, visits: Iterable[int]) -> Course:
    """Simulate one person over ``length`` frames.

    The emotional goal changes every ``dwell`` frames on average; ``visits`` are the expression classes to visit in
    turn, repeated if the video is longer.
    """
    va = walk(rng, length, dwell, visits)
    expression = regions(va)
    extra, rounding, speech = own_activity(rng, length, temper)
    called = prototype_course(rng, va, expression, temper)
    true = np.clip(np.maximum(called, extra), 0, 1.15)
    au25, au26 = DRAWN.index("AU25"), DRAWN.index("AU26")
    true[:, au25] = np.maximum(true[:, au25], 0.8 * true[:, au26])  # a dropped jaw parts the lips
    closed = np.maximum(true[:, DRAWN.index("AU24")], 0.7 * true[:, DRAWN.index("AU23")])
    true[:, au25] *= np.clip(1 - closed, 0, 1)
    true[:, au26] *= np.clip(1 - closed, 0, 1)
    jitter = rng.normal(0, 0.29, true.shape) * np.clip(0.4 + true, 0, 1)
    drawn = np.clip(true + temper.bias + jitter, 0, 1.25)
    lag = int(rng.integers(2, 6))
    marked = np.concatenate([np.repeat(va[:1], lag, 0), va])[:length]
    marked = np.clip(marked + 0.03 * smooth_noise(rng, length, 8, 2), -1, 1)
    return Course(
        valence_arousal=marked,
        expression=expression,
        au=(true[:, : len(AUS)] > ON).astype(np.int64),
        intensity=np.clip(true[:, : len(AUS)], 0, 1),
        drawn=drawn,
        gaze=np.clip(0.4 * smooth_noise(rng, length, 10, 2), -0.9, 0.9),
        rounding=rounding,
        feeling=va,
        speech=speech,
    )
