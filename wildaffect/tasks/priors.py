"""Expressions under another prior: how common each class is assumed to be, apart from what a face shows.

A network trained on pictures of which three fifths are neutral or happy answers as if every clip were like that. Bayes'
rule takes the prior of its training out of the probabilities and puts another one in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.artifact import read_json
from checkpoints.errors import UserError
from checkpoints.reading import shown
from wildaffect.tasks.task import EXPRESSIONS

FLOOR = 1e-4
"""Smallest share of a class in a prior: what never occurred in training cannot be made likely by dividing by zero."""
STEPS = 100
MOST = 1e9
"""Largest share that a file may say: shares are relative."""
TOLERANCE = 1e-5
ADAPTATIONS = ("none", "person", "clip")
LEAST = 10
"""Fewest frames from which a person's own baseline or prior is estimated; less than a second's are not enough either.
The median over a single frame would be that frame, and every face neutral."""


@dataclass(frozen=True)
class Prior:
    """What an expression head knows about priors.

    Attributes:
        trained: `[C]` shares of the classes in training.
        stated: `[C]` shares under which the head answers.
        rest: `[C]` mean log-probabilities, under `trained`, of faces labelled neutral in training.
    """

    trained: tuple[float, ...]
    stated: tuple[float, ...]
    rest: tuple[float, ...]

    def named(self, name: str | Path) -> Prior:
        """The same with the stated prior that an option names: see :func:`named_prior`."""
        shares = named_prior(name, np.array(self.trained), np.array(self.stated))
        return replace(self, stated=tuple(shares.tolist()))

    def restated(self, probabilities: np.ndarray) -> np.ndarray:
        """Probabilities `[..., C]` under `trained` as they are under `stated`."""
        if self.stated == self.trained:
            return probabilities
        return under_prior(probabilities, np.array(self.trained), np.array(self.stated))

    def adapted(self, probabilities: np.ndarray, seen: np.ndarray, how: str, rate: float) -> np.ndarray:
        """Probabilities `[T, C]` under `stated` of one person in a clip, adapted to the clip.

        Args:
            probabilities: `[T, C]`; they stay as they are if the person is seen too briefly.
            seen: `[T]` bool, frames with a face.
            how: One of `ADAPTATIONS`: `person`: relative to the person's own baseline, see :func:`against_rest`;
                `clip`: under the prior that is estimated from the clip, see :func:`estimated_prior`.
            rate: Frames per second.
        """
        if too_brief(int(seen.sum()), rate):
            return probabilities
        stated = np.array(self.stated)
        if how == "person":
            rest = self.restated(np.exp(np.array(self.rest)))
            return against_rest(probabilities, seen, np.log(np.maximum(rest, 1e-12)))
        if how == "clip":
            return under_prior(probabilities, stated, estimated_prior(probabilities[seen], stated))
        return probabilities


def too_brief(frames: int, rate: float) -> bool:
    """Whether somebody is seen in too few frames to be adapted to, at `rate` frames per second."""
    return frames < max(LEAST, round(rate))


def tempered(prior: np.ndarray, tau: float) -> np.ndarray:
    """Between a prior `[C]` (tau 0) and the uniform one over the classes that it holds (tau 1)."""
    prior = np.asarray(prior, np.float64)
    power = np.where(prior > 0, prior ** (1 - tau), 0.0)
    return power / power.sum()


def under_prior(probabilities: np.ndarray, trained: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Probabilities as they would be if the classes were as common as `wanted` says (Saerens et al. 2002, eq. 2.4).

    Args:
        probabilities: `[..., C]`, under the prior `trained`.
        trained: `[C]` shares of the classes in training.
        wanted: `[C]` shares that are said to hold.

    Returns:
        `[..., C]`, of the same type. A class that was not trained stays as it was.
    """
    trained, wanted = np.asarray(trained, np.float64), np.asarray(wanted, np.float64)
    share = np.where(wanted > 0, np.maximum(wanted, FLOOR), 0.0)
    factor = np.where(trained > 0, share / np.maximum(trained, FLOOR), 1.0)
    changed = probabilities * factor
    total = changed.sum(-1, keepdims=True)
    return np.where(total > 0, changed / np.maximum(total, 1e-30), probabilities).astype(probabilities.dtype)


def estimated_prior(probabilities: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Prior of unlabelled frames by expectation-maximisation, drawn halfway back to the known one.

    Saerens, Latinne and Decaestecker 2002, Neural Computation 14(1), eq. 2.9, as a maximum a posteriori estimate: the
    known prior counts as much as the frames. Without it the estimate runs away to rare classes, because votes are
    soft: every face has a few votes for disgust, which look like a few faces of pure disgust.

    Args:
        probabilities: `[N, C]`, under the prior `trained`.
        trained: `[C]`.

    Returns:
        `[C]`; `trained` if there are no frames.
    """
    trained = np.asarray(trained, np.float64)
    prior = trained
    if not len(probabilities):
        return prior
    exact = probabilities.astype(np.float64)
    for _ in range(STEPS):
        found = (under_prior(exact, trained, prior).mean(axis=0) + trained) / 2
        if np.abs(found - prior).max() < TOLERANCE:
            break
        prior = found
    return prior


def against_rest(probabilities: np.ndarray, seen: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Probabilities relative to the person's own baseline: a face that always looks a little sad is not sad.

    The person's median log-probabilities over the clip are moved to `rest`, those of neutral faces in training. This
    supposes that the person is at rest in most frames.

    Args:
        probabilities: `[T, C]`.
        seen: `[T]` bool, frames with a face.
        rest: `[C]` mean log-probabilities of neutral faces.

    Returns:
        `[T, C]`; unchanged if the person is never seen.
    """
    if not seen.any():
        return probabilities
    logs = np.log(np.maximum(probabilities.astype(np.float64), 1e-12))
    logs += rest - np.median(logs[seen], axis=0)
    moved = np.exp(logs - logs.max(-1, keepdims=True))
    return (moved / moved.sum(-1, keepdims=True)).astype(probabilities.dtype)


def named_prior(name: str | Path, trained: np.ndarray, stated: np.ndarray) -> np.ndarray:
    """The prior that an option names, `[C]`.

    Args:
        name: `stated` (the head's own), `trained`, `uniform` (over the classes that were trained), or a JSON file that
            maps names of expressions to shares.
        trained: `[C]`.
        stated: `[C]`.

    Raises:
        UserError: It is none of these, or the file does not say shares of the expressions that were trained.
    """
    name = str(name)
    known: dict[str, np.ndarray] = {"stated": stated, "trained": trained, "uniform": tempered(trained, 1.0)}
    if name in known:
        return known[name]
    if not name.endswith(".json"):
        raise UserError(f"--prior {name}: expected {', '.join(known)} or a JSON file of shares by expression")
    given: Any = read_json(Path(name))
    if not isinstance(given, dict) or not given:
        raise UserError(f'{name}: expected shares by expression, such as {{"Neutral": 0.5, "Happiness": 0.5}}')
    for key, share in given.items():
        if key not in EXPRESSIONS:
            raise UserError(f"{name}: {shown(key)} is none of {', '.join(EXPRESSIONS)}")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= MOST:
            raise UserError(f"{name}: the share of {key} is {shown(share)}; expected a number from 0 to {MOST:g}")
    shares = np.array([float(given.get(expression, 0)) for expression in EXPRESSIONS])
    if not shares[trained > 0].sum() > 0:
        raise UserError(f"{name}: the shares of all expressions that the head learnt are 0")
    return shares / shares.sum()
