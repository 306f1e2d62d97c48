"""Searches the post-processing of heads: smoothing, AU thresholds, and what each head counts in their average.

What is chosen on some videos looks better there than on others, and the more so the more was tried. So it is chosen by
nested grouped folds (Cawley and Talbot 2010): each fold is scored with what the other folds chose, and among these,
inner folds choose which parts of the post-processing are worth choosing at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations
from typing import Any

import numpy as np

from temporal.recipes import SmoothingKind
from temporal.scoring import drawn, percentiles
from temporal.smoothing import RAW, WIDTHS, Predicted, Smoothing, choose_thresholds, simplest, statistics
from wildaffect.tasks import Task
from wildaffect.tasks.folds import group_of

PICKS = 12
"""How many times a head is added to the average in the search for weights."""

Parts = tuple[str, ...]
"""Which parts of the post-processing are chosen; the others stay as the heads have them."""


@dataclass(frozen=True)
class Setting:
    """How the raw values of several heads become labels.

    Attributes:
        shares: `[H]` what each head counts in the average.
        smoothing: `[H]` filter of each head.
        thresholds: AU thresholds `[12]`, or None for 0.5.
    """

    shares: tuple[float, ...]
    smoothing: tuple[Smoothing, ...]
    thresholds: np.ndarray | None = None

    def values(self, same: Sequence[Predicted]) -> np.ndarray:
        """Smoothed average `[T, C]` of what the heads predict for one sequence."""
        smooth = [s.on_values(item.values, item.rate) for s, item in zip(self.smoothing, same, strict=True)]
        return np.average(smooth, axis=0, weights=self.shares)

    def decode(self, task: Task, same: Sequence[Predicted]) -> np.ndarray:
        """Labels `[T, W]` of one sequence."""
        first = next(s for s, share in zip(self.smoothing, self.shares, strict=True) if share)
        return first.on_decoded(task.decode(self.values(same), self.thresholds), same[0].rate)


class Search:
    """Fits the post-processing of one task on some folds and judges it on others.

    Args:
        task: the task.
        items: the raw values of every head, for every sequence.
        own: the post-processing as the heads have it.
        folds: `[V]` number of each sequence's fold.
    """

    def __init__(self, task: Task, items: Sequence[Sequence[Predicted]], own: Setting, folds: np.ndarray) -> None:
        self.task, self.items, self.own, self.folds = task, items, own, folds
        parts = ["smoothing", *(["shares"] if len(own.shares) > 1 else [])]
        parts += ["thresholds"] if task.name == "au" else []
        self.plans: list[Parts] = [*chain.from_iterable(combinations(parts, n) for n in range(len(parts) + 1))]
        kinds: list[SmoothingKind] = ["box", "gaussian"]
        kinds += ["mode"] if task.name == "expr" else []
        self._tried = [RAW, *(Smoothing(kind, width, "seconds") for width in WIDTHS["seconds"] for kind in kinds)]
        raw = replace(own, smoothing=(RAW,) * len(own.shares))
        averages = [replace(same[0], values=raw.values(same)) for same in items]
        self._sums = np.array([statistics(task, averages, smoothing, own.thresholds) for smoothing in self._tried])
        self._fitted: dict[tuple[Parts, frozenset[int]], Setting] = {}

    def judged(self, setting: Setting, rows: np.ndarray) -> np.ndarray:
        """Additive statistics `[v, ...]` of some sequences."""
        same = [self.items[row] for row in rows]
        return np.array([self.task.statistics(setting.decode(self.task, s), s[0].labels, s[0].mask) for s in same])

    def fit(self, parts: Parts, left_out: frozenset[int] = frozenset()) -> Setting:
        """Choose some parts of the post-processing on all sequences but those of some folds."""
        key = (parts, left_out)
        if key not in self._fitted:
            self._fitted[key] = self._fit(parts, np.flatnonzero(~np.isin(self.folds, list(left_out))))
        return self._fitted[key]

    def _fit(self, parts: Parts, rows: np.ndarray) -> Setting:
        setting = self.own
        if "smoothing" in parts:
            scores = [self._score(sums[rows]) for sums in self._sums]
            setting = replace(setting, smoothing=(simplest(self._tried, scores),) * len(setting.shares))
        if "shares" in parts:
            setting = replace(setting, shares=self._shares(setting, rows))
        if "thresholds" in parts:
            same = [self.items[row] for row in rows]
            setting = replace(
                setting,
                thresholds=choose_thresholds([replace(s[0], values=setting.values(s)) for s in same], RAW),
            )
        return setting

    def _shares(self, setting: Setting, rows: np.ndarray) -> tuple[float, ...]:
        """Add the head that helps most, again and again; the best average on the way (Caruana et al. 2004).

        Classes are not filtered here: it would change little and take long.
        """
        chosen = [self.items[row] for row in rows]
        smooth = [
            np.concatenate([setting.smoothing[n].on_values(same[n].values, same[n].rate) for same in chosen])
            for n in range(len(setting.shares))
        ]
        labels, mask = (np.concatenate([getattr(same[0], name) for same in chosen]) for name in ("labels", "mask"))
        total, picks, best, reached = np.zeros_like(smooth[0]), np.zeros(len(smooth)), setting.shares, -np.inf
        for count in range(1, PICKS + 1):
            averages = [(total + values) / count for values in smooth]
            scores = [
                self.task.score(self.task.decode(values, setting.thresholds), labels, mask)["score"]
                for values in averages
            ]
            pick = int(np.argmax(scores))
            total, picks[pick] = total + smooth[pick], picks[pick] + 1
            if scores[pick] > reached:
                reached, best = scores[pick], tuple((picks / count).tolist())
        return best

    def _score(self, sums: np.ndarray) -> float:
        return float(self.task.score_statistics(sums.sum(axis=0))["score"])

    def plan(self, left_out: frozenset[int] = frozenset()) -> Parts:
        """What is worth choosing, by folds among all but the left out ones: the fewest parts that do about as well."""
        inner = [fold for fold in np.unique(self.folds).tolist() if fold not in left_out]
        scores = []
        for parts in self.plans:
            sums = [
                self.judged(self.fit(parts, left_out | {fold}), np.flatnonzero(self.folds == fold)) for fold in inner
            ]
            scores.append(self._score(np.concatenate(sums)))
        return simplest(self.plans, scores)

    def result(self) -> tuple[Setting, dict[str, Any]]:
        """The post-processing that all sequences choose, and what such a choice is worth.

        Returns:
            The setting, and `parts` that were worth choosing; `as_they_are`, `nested` (each fold scored with what the
            others chose) and `naive` (all parts chosen and scored on the same sequences), each with `score` and, except
            the first, `gain` over it with the ends of its 95 % interval, `gain_low` and `gain_high`.
        """
        everything = np.arange(len(self.items))
        outer: dict[int, np.ndarray] = {}
        for fold in np.unique(self.folds).tolist():
            chosen = self.fit(self.plan(frozenset({fold})), frozenset({fold}))
            rows = np.flatnonzero(self.folds == fold)
            outer |= dict(zip(rows.tolist(), self.judged(chosen, rows), strict=True))
        before = self._by_recording(self.judged(self.own, everything))
        results: dict[str, Any] = {"as_they_are": {"score": self._score(before)}}
        for name, sums in (
            ("nested", np.array([outer[row] for row in everything.tolist()])),
            ("naive", self.judged(self.fit(self.plans[-1]), everything)),
        ):
            after = self._by_recording(sums)
            low, high = percentiles(drawn(self.task, after) - drawn(self.task, before)) or (None, None)
            score = self._score(after)
            gain = score - self._score(before)
            results[name] = {"score": score, "gain": gain, "gain_low": low, "gain_high": high}
        plan = self.plan()
        return self.fit(plan), {"parts": list(plan), **results}

    def _by_recording(self, sums: np.ndarray) -> np.ndarray:
        """Statistics `[R, ...]` of whole recordings from those of sequences `[V, ...]`."""
        _, where = np.unique([group_of(same[0].id) for same in self.items], return_inverse=True)
        return np.array([sums[where == number].sum(axis=0) for number in range(where.max() + 1)])
