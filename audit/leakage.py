"""Finds videos and people that two splits share: one that trains or chooses, and one that is evaluated."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np

from wildaffect.report.figures import canvas
from wildaffect.tasks.folds import group_of
from wildaffect.tasks.split_words import TRAIN, VALIDATION

TEST = "Test_Set"


@dataclass(frozen=True)
class Leak:
    """What two splits have in common.

    Attributes:
        train: (task, split) for training, or for choosing what is evaluated on the other.
        evaluated: (task, split) for evaluation.
        recordings: Number of recordings in the evaluated split.
        ids: Label files in both.
        videos: Recordings in both; all subjects and parts of a video are one recording.
        people: People in both, as far as identities are known.
    """

    train: tuple[str, str]
    evaluated: tuple[str, str]
    recordings: int
    ids: list[str]
    videos: list[str]
    people: list[str]


def find_leaks(splits: Mapping[tuple[str, str], Iterable[str]], identities: Mapping[str, str]) -> list[Leak]:
    """Compare every training split with every validation and test split, and every validation split with these too.

    Args:
        splits: (task, split) -> ids of label files; splits are `Train_Set`, `Validation_Set` and `Test_Set`.
        identities: id -> person, if known.

    Returns:
        One entry per pair of splits, even if they share nothing.
    """
    found = []
    trained, validated, tested = ([key for key in splits if key[1] == part] for part in (TRAIN, VALIDATION, TEST))
    pairs = [*product(trained, validated + tested), *combinations(validated, 2), *product(validated, tested)]
    for train, other in pairs:
        seen, judged = set(splits[train]), set(splits[other])
        videos = {group_of(id) for id in seen} & {group_of(id) for id in judged}
        people = {identities[id] for id in seen if id in identities}
        people &= {identities[id] for id in judged if id in identities}
        recordings = len({group_of(id) for id in judged})
        found.append(Leak(train, other, recordings, sorted(seen & judged), sorted(videos), sorted(people)))
    return found


def draw_leaks(leaks: Sequence[Leak]) -> Any:
    """Draw a matrix of the recordings that pairs of splits share."""
    rows = list(dict.fromkeys(leak.train for leak in leaks))
    columns = list(dict.fromkeys(leak.evaluated for leak in leaks))
    part = np.full((len(rows), len(columns)), np.nan)
    figure, axes = canvas(width=1.6 + 1.1 * len(columns), height=1.2 + 0.6 * len(rows))
    axis = axes[0, 0]
    for leak in leaks:
        row, column = rows.index(leak.train), columns.index(leak.evaluated)
        part[row, column] = len(leak.videos) / max(leak.recordings, 1)
        colour = "white" if part[row, column] > 0.6 else "black"
        text = f"{len(leak.videos)} of {leak.recordings}"
        axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    axis.imshow(part, cmap="Reds", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(len(columns)), [f"{task}\n{_short(split)}" for task, split in columns])
    axis.set_yticks(range(len(rows)), [f"{task} {_short(split)}" for task, split in rows])
    axis.set_xlabel("evaluated on")
    axis.set_ylabel("trained or chosen on")
    axis.spines[:].set_visible(False)
    return figure


def _short(split: str) -> str:
    return split.removesuffix("_Set").lower()
