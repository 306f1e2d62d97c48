"""Splits that no video straddles: everything recorded of one base video stays on one side."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from checkpoints.errors import UserError


def base_video(id: str) -> str:
    """The video an id belongs to: `10-60-1280x720_right` -> `10-60-1280x720` (ids may also end in `_1`: kept)."""
    return re.sub(r"_(left|right)$", "", id)


def group_of(id: str) -> str:
    """Name shared by all subjects and all parts of one recording.

    Parts are `24-30-1920x1080-1` and `video45_1`: the same people in the same room, so folds keep them together.
    """
    video = base_video(id)
    return re.sub(r"^(video\d+)_\d+$", r"\1", re.sub(r"(?<=\d)x(\d+)-\d+$", r"x\1", video))


def groups(ids: Iterable[str], identities: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """Ids by group, joined further where two share an identity.

    Args:
        ids: ids of label files.
        identities: id -> person, where known.
    """
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        while parent.setdefault(node, node) != node:
            node = parent[node]
        return node

    ids = sorted(set(ids))
    for id in ids:
        group = root(f"video {group_of(id)}")
        if identities and id in identities:
            parent[root(f"person {identities[id]}")] = group
    joined: dict[str, list[str]] = {}
    for id in ids:
        joined.setdefault(root(f"video {group_of(id)}"), []).append(id)
    return {members[0]: members for members in joined.values()}


def grouped_folds(
    sizes: Mapping[str, int], k: int, seed: int = 0, identities: Mapping[str, str] | None = None
) -> list[list[str]]:
    """Split ids into `k` folds of about equal numbers of frames, groups kept whole.

    Args:
        sizes: id -> frames.
        k: number of folds.
        seed: which of the many such splits.
        identities: id -> person, where known.

    Returns:
        k sorted lists of ids; every id stands in exactly one.

    Raises:
        UserError: when there are fewer groups than folds.
    """
    together = list(groups(sizes, identities).values())
    if len(together) < k:
        raise UserError(f"{k} folds need at least {k} videos, there are {len(together)}: ask for fewer folds")
    order = np.random.default_rng(seed).permutation(len(together))
    # Largest first onto the emptiest fold; the seeded permutation settles the ties and the small ones.
    ranked = sorted(order, key=lambda index: -round(np.log2(1 + sum(sizes[id] for id in together[index]))))
    folds: list[list[str]] = [[] for _ in range(k)]
    filled = np.zeros(k)
    for index in ranked:
        target = int(np.argmin(filled))
        folds[target] += together[index]
        filled[target] += max(1, sum(sizes[id] for id in together[index]))
    return [sorted(fold) for fold in folds]


def hold_out(
    sizes: Mapping[str, int], fraction: float = 0.1, seed: int = 0, identities: Mapping[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """Split ids into (kept, held out), groups kept whole; about `fraction` of the groups, at least one, is held out.

    Raises:
        UserError: when there is only one group.
    """
    together = list(groups(sizes, identities).values())
    if len(together) < 2:
        raise UserError("holding out videos needs at least two of them (two subjects of one video count as one)")
    order = np.random.default_rng(seed).permutation(len(together))
    count = min(len(together) - 1, max(1, round(fraction * len(together))))
    held = sorted(id for index in order[:count] for id in together[index])
    return sorted(set(sizes) - set(held)), held
