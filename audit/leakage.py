"""Finds videos and people that are in the training split of one task and in an evaluated split of another."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from wildaffect.report.figures import canvas
from wildaffect.tasks.folds import group_of

TEST = "Test_Set"


@dataclass(frozen=True)
class Leak:
    """What a training split and an evaluated split have in common.

    Attributes:
        train: (task, split) for training.
        evaluated: (task, split) for evaluation.
        ids: Label files in both.
        videos: Recordings in both; all subjects and parts of a video are one recording.
        people: People in both, as far as identities are known.
    """

    train: tuple[str, str]
    evaluated: tuple[str, str]
    ids: list[str]
    videos: list[str]
    people: list[str]


def find_leaks(splits: Mapping[tuple[str, str], Iterable[str]], identities: Mapping[str, str]) -> list[Leak]:
    """Compare every training split with every validation and test split.

    Args:
        splits: (task, split) -> ids of label files; splits are `Train_Set`, `Validation_Set` and `Test_Set`.
        identities: id -> person, if known.

    Returns:
        One entry per pair of splits, even if they share nothing.
    """
    found = []
    trained = [key for key in splits if key[1] == "Train_Set"]
    evaluated = [key for key in splits if key[1] != "Train_Set"]
    for train, other in product(trained, evaluated):
        seen, judged = set(splits[train]), set(splits[other])
        videos = {group_of(id) for id in seen} & {group_of(id) for id in judged}
        people = {identities[id] for id in seen if id in identities}
        people &= {identities[id] for id in judged if id in identities}
        found.append(Leak(train, other, sorted(seen & judged), sorted(videos), sorted(people)))
    return found


def draw_leaks(leaks: Sequence[Leak], sizes: Mapping[tuple[str, str], int]) -> Any:
    """Draw a matrix of the recordings that pairs of splits share; `sizes` holds the recordings per split."""
    rows = list(dict.fromkeys(leak.train for leak in leaks))
    columns = list(dict.fromkeys(leak.evaluated for leak in leaks))
    shared = np.zeros((len(rows), len(columns)), int)
    for leak in leaks:
        shared[rows.index(leak.train), columns.index(leak.evaluated)] = len(leak.videos)
    part = shared / np.array([max(sizes[column], 1) for column in columns])
    figure, axes = canvas(width=1.6 + 1.1 * len(columns), height=1.2 + 0.6 * len(rows))
    axis = axes[0, 0]
    axis.imshow(part, cmap="Reds", vmin=0, vmax=1, aspect="auto")
    for row, column in product(range(len(rows)), range(len(columns))):
        colour = "white" if part[row, column] > 0.6 else "black"
        text = f"{shared[row, column]} of {sizes[columns[column]]}"
        axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    axis.set_xticks(range(len(columns)), [f"{task}\n{_short(split)}" for task, split in columns])
    axis.set_yticks(range(len(rows)), [f"{task} {_short(split)}" for task, split in rows])
    axis.set_xlabel("evaluated on")
    axis.set_ylabel("trained on")
    axis.spines[:].set_visible(False)
    return figure


def _short(split: str) -> str:
    return split.removesuffix("_Set").lower()
