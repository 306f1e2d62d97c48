"""Labelled features in memory: one flat table of all frames of all sequences, on the training device.

A sequence is as long as its label file says. The table is filled once; windows are row numbers into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from checkpoints.errors import UserError
from features.cache import FeatureCache
from temporal.smoothing import Predicted
from wildaffect.tasks import Task
from wildaffect.tasks.labels import LabelTrack, Tracks

# Label files of Aff-Wild2 have one or two lines more, or one less, than the video has frames.
LENGTH_TOLERANCE = 5


@dataclass
class FrameTable:
    """All frames of a set of sequences.

    Attributes:
        ids: the sequences, sorted.
        spans: (first row, length) of each.
        features: `[N, D]` float16, the caches' features side by side.
        valid: `[N, C]` bool, one flag per cache.
        labels: task name -> `[N, W]` float32.
        mask: task name -> `[N, W]` bool.
        rates: frames per second of each sequence.
    """

    ids: list[str]
    spans: list[tuple[int, int]]
    features: torch.Tensor
    valid: torch.Tensor
    labels: dict[str, torch.Tensor]
    mask: dict[str, torch.Tensor]
    rates: list[float]

    def to(self, device: torch.device | str) -> FrameTable:
        """The table on a device; features that do not fit into half of its free memory stay where they are."""
        device = torch.device(device)
        features = self.features
        if device.type != "cuda" or features.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
            features = features.to(device)
        labels, mask = ({name: x.to(device) for name, x in part.items()} for part in (self.labels, self.mask))
        return replace(self, features=features, valid=self.valid.to(device), labels=labels, mask=mask)

    def inputs(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features `[B, T, D]` and validity `[B, T, C]` of table rows `[B, T]`, on the device of `rows`."""
        return take(self.features, rows), take(self.valid, rows)

    def targets(self, task: str, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels and mask `[B, T, W]` of table rows `[B, T]`."""
        return take(self.labels[task], rows), take(self.mask[task], rows)

    def faces(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Id -> `[T]` bool, frames with a face in any cache."""
        seen = self.valid.any(dim=1).cpu().numpy()
        return {self.ids[i]: seen[self.spans[i][0] : sum(self.spans[i])] for i in self.select(ids)}

    def select(self, ids: Sequence[str]) -> list[int]:
        """Positions of the given ids."""
        position = {id: i for i, id in enumerate(self.ids)}
        return [position[id] for id in ids]

    def predicted(self, task: str, values: np.ndarray, ids: Sequence[str]) -> list[Predicted]:
        """Pair values `[N, C]` of the whole table with the labels of some sequences."""
        labels, mask = self.labels[task].cpu().numpy(), self.mask[task].cpu().numpy()
        items = []
        for i in self.select(ids):
            start, length = self.spans[i]
            rows = slice(start, start + length)
            items.append(Predicted(self.ids[i], values[rows], labels[rows], mask[rows], self.rates[i]))
        return items


def take(table: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Windows of a table `[N, D]`, copied where it lies and brought to the device of `rows`: `[B, T, D]`.

    Args:
        table: `[N, D]`.
        rows: `[B, T]` rows of windows: each one's rows rise by 1, or by 0 where it reaches beyond its sequence.
    """
    if table.device.type != "cpu":
        return table.index_select(0, rows.flatten().to(table.device)).view(*rows.shape, -1).to(rows.device)
    # A window inside its sequence is one piece of memory: copying it whole is faster than row by row.
    array, wanted, time = table.numpy(), rows.cpu().numpy(), rows.shape[1]
    taken = np.empty((*wanted.shape, table.shape[1]), array.dtype)
    for window, here in zip(taken, wanted, strict=True):
        first = here[0]
        window[:] = array[first : first + time] if here[-1] - first == time - 1 else array[here]
    return torch.from_numpy(taken).to(rows.device)


def open_caches(paths: Sequence[Path]) -> list[FeatureCache]:
    """Open feature caches that go together.

    Raises:
        UserError: when none is named, or two hold features of different frames for the same id.
    """
    if not paths:
        raise UserError("no feature cache given: pass --features CACHE (made by features/run.py)")
    caches = [FeatureCache(path) for path in paths]
    first = caches[0]
    for other in caches[1:]:
        for id in sorted(set(first.ids) & set(other.ids)):
            if first.span(id) != other.span(id):
                raise UserError(
                    f"{first.path} has frames {first.span(id)[0]} to {first.span(id)[1]} of {id}, {other.path} has "
                    f"{other.span(id)[0]} to {other.span(id)[1]}: extract both from the same faces store"
                )
    return caches


def build_table(caches: Sequence[FeatureCache], tracks: Mapping[str, Tracks], tasks: Sequence[Task]) -> FrameTable:
    """Read the features of every labelled sequence.

    Args:
        caches: their features stand side by side.
        tracks: task name -> id -> annotations; a sequence is as long as the longest of its label files, or where these
            only list frames, as its features.
        tasks: the tasks of the head.

    Raises:
        UserError: for a labelled id that a cache lacks, or a cache that does not fit the labels.
    """
    ids = sorted({id for by_id in tracks.values() for id in by_id})
    for cache in caches:
        missing = [id for id in ids if id not in cache]
        if missing:
            raise UserError(
                f"the feature cache {cache.path} lacks {len(missing)} of {len(ids)} labelled sequences, such as "
                f"{missing[0]}: extract their features, or give the labels of what it holds"
            )
    lengths = [_length([by_id[id] for by_id in tracks.values() if id in by_id], caches, id) for id in ids]
    total, width = sum(lengths), sum(cache.dim for cache in caches)
    features = torch.zeros(total, width, dtype=torch.float16)
    valid = torch.zeros(total, len(caches), dtype=torch.bool)
    labels = {task.name: torch.full((total, task.label_width), float(task.marker)) for task in tasks}
    spans, rates, start = [], [], 0
    for id, length in zip(ids, lengths, strict=True):
        rows = slice(start, start + length)
        column = 0
        for number, cache in enumerate(caches):
            _check_length(cache, id, length)
            read = cache.read(id, length)
            features[rows, column : column + cache.dim] = torch.from_numpy(read.features)
            valid[rows, number] = torch.from_numpy(read.valid)
            column += cache.dim
        for task in tasks:
            track = tracks.get(task.name, {}).get(id)
            if track is not None:
                labels[task.name][start : start + len(track)] = torch.from_numpy(track.labels)
        spans.append((start, length))
        rates.append(frame_rate(read.time_s))
        start += length
    mask = {task.name: torch.from_numpy(task.mask(labels[task.name].numpy())) for task in tasks}
    return FrameTable(ids, spans, features, valid, labels, mask, rates)


def _length(tracks: Sequence[LabelTrack], caches: Sequence[FeatureCache], id: str) -> int:
    """Frames of a sequence."""
    ends = [cache.span(id)[1] for cache in caches] if all(track.listed for track in tracks) else []
    return max(*ends, *map(len, tracks), 0)


def frame_rate(time_s: np.ndarray) -> float:
    """Frames per second from frame times (the median interval); 30 where they do not tell."""
    step = float(np.median(np.diff(time_s))) if len(time_s) > 1 else 0.0
    return 1 / step if step > 1e-6 else 30.0


def _check_length(cache: FeatureCache, id: str, length: int) -> None:
    """Refuse a cache that goes on beyond the labels, or covers less than half of them: it is of another video."""
    first, last = cache.span(id)
    if last > length + LENGTH_TOLERANCE or (first == 1 and last < length / 2):
        raise UserError(
            f"{id} has {length} label lines, but {cache.path} holds its frames {first} to {last}: features and labels "
            "are not of the same video"
        )
