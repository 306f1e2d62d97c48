"""The labels of one subject of one video, whatever kind of file they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from checkpoints.reading import Refuse
from wildaffect.tasks.task import Task


@dataclass(frozen=True)
class LabelTrack:
    """Labels of one subject of one video; row t is frame t + 1.

    Attributes:
        labels: `[T, label_width]` float32: valence and arousal, class numbers, or AUs (0, 1 or an intensity between);
            the task's marker where a frame is not annotated.
        mask: `[T, label_width]` bool, true where annotated.
        path: The file they came from.
        listed: The file lists single frames (MTL, tables), so the video may go on after the last of them.
        soft: `[T, out_dim]` float32 distributions over the classes (raters' votes), to be trained on; None for plain
            labels.
    """

    labels: np.ndarray
    mask: np.ndarray
    path: Path
    listed: bool = False
    soft: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def targets(self, task: Task) -> np.ndarray:
        """What a network is trained on, `[T, out_dim]` float32: the votes, or the task's form of the labels."""
        return task.targets(self.labels) if self.soft is None else self.soft


Tracks = dict[str, LabelTrack]
Spans = Mapping[str, tuple[int, int]]
"""Id -> first and last frame of the sequence, as a faces store or a feature cache has it."""


def checked_labels(labels: np.ndarray, bad: np.ndarray, task: Task, refuse: Refuse) -> np.ndarray:
    """Labels `[N, label_width]` float64 as float32.

    Raises:
        UserError: Made by `refuse`, about the first that is `bad`.
    """
    if bad.any():
        row, column = (int(index[0]) for index in np.nonzero(bad))
        problem = f"{labels[row, column]:.10g} is not a valid {task.name} label ({task.range})"
        raise refuse(row, task.label_columns[column], problem)
    return labels.astype(np.float32)


def tracks_from_rows(
    ids: Sequence[str],
    frames: np.ndarray,
    labels: np.ndarray,
    task: Task,
    path: Path,
    refuse: Refuse,
    soft: np.ndarray | None = None,
) -> Tracks:
    """Group single labelled frames into tracks.

    Args:
        ids: `[N]` id of each row.
        frames: `[N]` frame numbers, from 1.
        labels: `[N, label_width]`, checked already.
        task: Which labels.
        path: The file.
        refuse: Makes the errors about rows.
        soft: `[N, out_dim]`, see :class:`LabelTrack`.

    Returns:
        Id -> track, as long as the last frame listed; frames that are not listed carry the marker. Ids without any
        annotated frame are left out.

    Raises:
        UserError: A frame is listed twice.
    """
    rows: dict[str, list[int]] = {}
    for row, id in enumerate(ids):
        rows.setdefault(id, []).append(row)
    tracks = {}
    for id in sorted(rows):
        mine = np.array(rows[id])
        numbers = frames[mine]
        if len(np.unique(numbers)) != len(numbers):
            order = np.argsort(numbers, kind="stable")
            again = int(mine[order[1:][np.diff(numbers[order]) == 0].min()])
            raise refuse(again, "", f"frame {frames[again]} of {id} is listed twice")
        dense = np.full((int(numbers.max()), task.label_width), task.marker, np.float32)
        dense[numbers - 1] = labels[mine]
        track = LabelTrack(dense, task.mask(dense), path, listed=True)
        if soft is not None:
            wide = np.zeros((len(dense), soft.shape[1]), np.float32)
            wide[numbers - 1] = soft[mine]
            track = replace(track, soft=wide)
        if track.mask.any():
            tracks[id] = track
    return tracks
