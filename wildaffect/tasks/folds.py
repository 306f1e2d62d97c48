"""Folds and held-out videos. Everything recorded in one base video stays on one side of a split."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from checkpoints.errors import UserError, some
from checkpoints.reading import LONGEST_NAME, in_lines, read_lines, shown
from wildaffect.tasks.class_map import ClassMap
from wildaffect.tasks.label_track import Spans
from wildaffect.tasks.labels import Tracks, all_annotations
from wildaffect.tasks.task import TASKS

_SUBJECT = re.compile(r"_(left|right)$")
_PART = re.compile(r"(?<=\d)x(\d+)-\d+$")
_VIDEO_PART = re.compile(r"^(video\d+)_\d+$")


def base_video(id: str) -> str:
    """The video an id belongs to: `10-60-1280x720_right` -> `10-60-1280x720` (ids may also end in `_1`: kept)."""
    return _SUBJECT.sub("", id)


@lru_cache(maxsize=1 << 17)  # heads list the tens of thousands of ids that taught them, and share many
def group_of(id: str) -> str:
    """Name shared by all subjects and all parts of one recording.

    Parts are `24-30-1920x1080-1` and `video45_1`: the same people in the same room, so folds keep them together.
    """
    return _VIDEO_PART.sub(r"\1", _PART.sub(r"x\1", base_video(id)))


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
    counts: Mapping[str, np.ndarray], k: int, seed: int = 0, identities: Mapping[str, str] | None = None
) -> list[list[str]]:
    """Split ids into `k` folds with about the same label counts, keeping groups whole.

    Greedy, like scikit-learn's StratifiedGroupKFold but for several labels per sample: the largest group comes first,
    and each group goes to the fold that has least of the labels that the group brings.

    Args:
        counts: id -> `[C]` numbers of frames of each kind (see :func:`label_counts`).
        k: number of folds.
        seed: which of the many such splits.
        identities: id -> person, where known.

    Returns:
        k sorted lists of ids; every id stands in exactly one.

    Raises:
        UserError: There are fewer groups than folds.
    """
    together = list(groups(counts, identities).values())
    if len(together) < k:
        raise UserError(f"{k} folds need at least {k} videos, but there are only {len(together)}: ask for fewer folds")
    brings = np.array([np.sum([counts[id] for id in members], axis=0) for members in together], float)
    brings /= np.maximum(brings.sum(axis=0), 1)  # shares: a rare label counts as much as a frequent one
    rng = np.random.default_rng(seed)  # shuffles groups of about the same weight
    weight = np.log2(1e-9 + np.square(brings).sum(axis=1)).round()
    folds: list[list[str]] = [[] for _ in range(k)]
    filled = np.zeros((k, brings.shape[1]))
    for index in np.lexsort((rng.random(len(together)), -weight)):
        cost = [(bool(fold), float(has @ brings[index]), len(fold)) for fold, has in zip(folds, filled, strict=True)]
        target = min(range(k), key=cost.__getitem__)
        folds[target] += together[index]
        filled[target] += brings[index]
    return [sorted(fold) for fold in folds]


def label_counts(annotations: Mapping[str, Mapping[str, Tracks]]) -> dict[str, np.ndarray]:
    """Label counts per id: `[C]` numbers of annotated frames of each kind, one task after the other.

    Args:
        annotations: task name -> split -> id -> track.
    """
    ids = sorted({id for by_split in annotations.values() for tracks in by_split.values() for id in tracks})
    counts: dict[str, list[np.ndarray]] = {id: [] for id in ids}
    for name, by_split in annotations.items():
        task = TASKS[name]
        for id in ids:
            found = next((tracks[id] for tracks in by_split.values() if id in tracks), None)
            counts[id].append(np.zeros(len(task.kinds)) if found is None else task.strata(found.labels, found.mask))
    return {id: np.concatenate(parts) for id, parts in counts.items()}


def release_folds(
    root: Path | str,
    k: int,
    seed: int = 0,
    *,
    class_map: ClassMap | None = None,
    spans: Spans | None = None,
    required: Collection[str] = tuple(TASKS),
) -> list[list[str]]:
    """Folds over everything a release annotates for training or validation, the same for every task.

    Args:
        root: what :func:`wildaffect.tasks.labels.read_annotations` reads, as for `class_map` and `spans`.
        k: number of folds.
        seed: which of the many such splits.
        class_map: what class names and numbers mean.
        spans: the sequences that the labels belong to.
        required: see :func:`wildaffect.tasks.labels.all_annotations`.

    Raises:
        UserError: There are fewer videos than folds, or a file is malformed.
    """
    annotations = all_annotations(root, class_map=class_map, spans=spans, required=required)
    return grouped_folds(label_counts(annotations), k, seed)


def hold_out(sizes: Mapping[str, int], fraction: float = 0.1, seed: int = 0) -> tuple[list[str], list[str]]:
    """Split ids into (kept, held out), keeping groups whole; about `fraction` of the groups, at least one, is held out.

    Raises:
        UserError: There is only one group.
    """
    together = list(groups(sizes).values())
    if len(together) < 2:
        raise UserError("holding out videos needs at least two of them (two subjects of one video count as one)")
    order = np.random.default_rng(seed).permutation(len(together))
    count = min(len(together) - 1, max(1, round(fraction * len(together))))
    held = sorted(id for index in order[:count] for id in together[index])
    return sorted(set(sizes) - set(held)), held


def read_ids(path: Path) -> list[str]:
    """Ids of a list, one per line; empty lines and comments after `#` are ignored.

    Raises:
        UserError: The file cannot be read, lists no id, or an id is too long to be one.
    """
    ids = [line.split("#")[0].strip() for line in read_lines(path)]
    for row, id in enumerate(ids):
        if len(id) > LONGEST_NAME:
            raise in_lines(path, 1)(row, "", f"expected an id, found {shown(id)}")
    if not any(ids):
        raise UserError(f"{path} lists no id: expected one per line")
    return [id for id in ids if id]


def read_known_ids(path: Path, known: Iterable[str]) -> list[str]:
    """Ids of a list, each of which must be of a recording that is `known`.

    Raises:
        UserError: See :func:`read_ids` and :func:`refuse_unknown`.
    """
    ids = read_ids(path)
    refuse_unknown(path, ids, known)
    return ids


def refuse_unknown(path: Path, ids: Sequence[str], known: Iterable[str]) -> None:
    """Check that each of the ids of a list is of a recording that is `known`.

    Raises:
        UserError: Ids match nothing.
    """
    recordings = {group_of(id) for id in known}
    unknown = [id for id in ids if group_of(id) not in recordings]
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} of its {len(ids)} ids match nothing here: {some([*map(shown, unknown)], 3)}: "
            "correct them, or remove their lines"
        )


def without(ids: Iterable[str], excluded: Iterable[str]) -> list[str]:
    """The ids whose recording no excluded id belongs to; subjects and parts of one recording go together."""
    left_out = {group_of(id) for id in excluded}
    return [id for id in ids if group_of(id) not in left_out]
