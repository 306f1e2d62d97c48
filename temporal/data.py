"""Labelled features in memory: one flat table of all frames of all sequences, on the training device.

The label file determines the length of a sequence. The table is filled once, and windows are row numbers into it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from checkpoints.errors import UserError, some
from features.cache import FeatureCache, Features, median_step
from temporal.smoothing import Predicted
from wildaffect.tasks import Task
from wildaffect.tasks.folds import base_video
from wildaffect.tasks.label_track import LabelTrack, Tracks

# Label files of Aff-Wild2 have up to two lines more, or one line less, than the video has frames.
LENGTH_TOLERANCE = 5


@dataclass
class FrameTable:
    """All frames of a set of sequences.

    Attributes:
        ids: ids of the sequences, sorted.
        spans: (first row, length) of each.
        features: `[N, D]` float16, the caches' features concatenated.
        valid: `[N, C]` bool, one flag per cache.
        labels: task name -> `[N, W]` float32.
        mask: task name -> `[N, W]` bool.
        soft: task name -> `[N, C]` float32 distributions, for tasks some of whose labels are raters' votes.
        rates: frames per second of each sequence.
    """

    ids: list[str]
    spans: list[tuple[int, int]]
    features: torch.Tensor
    valid: torch.Tensor
    labels: dict[str, torch.Tensor]
    mask: dict[str, torch.Tensor]
    rates: list[float]
    soft: dict[str, torch.Tensor] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> "FrameTable":
        """Move the table to a device. Features that need more than half of its free memory stay where they are."""
        device = torch.device(device)
        features = self.features
        if device.type != "cuda" or features.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
            features = features.to(device)
        labels, mask, soft = (
            {name: x.to(device) for name, x in part.items()} for part in (self.labels, self.mask, self.soft)
        )
        return replace(self, features=features, valid=self.valid.to(device), labels=labels, mask=mask, soft=soft)

    def inputs(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features `[B, T, D]` and validity `[B, T, C]` of table rows `[B, T]`, on the device of `rows`."""
        return take(self.features, rows), take(self.valid, rows)

    def targets(self, task: str, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What is trained on, `[B, T, W]` labels or `[B, T, C]` distributions, and the mask of table rows `[B, T]`."""
        return take(self.soft.get(task, self.labels[task]), rows), take(self.mask[task], rows)

    def faces(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Id -> `[T]` bool, true for frames with a face, or sound, in any cache."""
        seen = self.valid.any(dim=1).cpu().numpy()
        return {self.ids[i]: seen[self.spans[i][0] : sum(self.spans[i])] for i in self.select(ids)}

    def select(self, ids: Sequence[str]) -> list[int]:
        """Positions of the given ids in the table."""
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
    """Gather windows `[B, T, D]` from a table on the table's device, and move them to the device of `rows`.

    Args:
        table: `[N, D]`.
        rows: `[B, T]` rows of the windows. Within a window they rise by 1, or by 0 beyond the ends of the sequence.
    """
    if table.device.type != "cpu":
        return table.index_select(0, rows.flatten().to(table.device)).view(*rows.shape, -1).to(rows.device)
    # A window inside its sequence is contiguous in memory, and copying it at once is faster than row by row.
    array, wanted, time = table.numpy(), rows.cpu().numpy(), rows.shape[1]
    taken = np.empty((*wanted.shape, table.shape[1]), array.dtype)
    for window, here in zip(taken, wanted, strict=True):
        first = here[0]
        window[:] = array[first : first + time] if here[-1] - first == time - 1 else array[here]
    return torch.from_numpy(taken).to(rows.device)


def build_table(caches: Sequence[FeatureCache], tracks: Mapping[str, Tracks], tasks: Sequence[Task]) -> FrameTable:
    """Read the features of every labelled sequence.

    Args:
        caches: their features stand side by side.
        tracks: task name -> id -> annotations; a sequence is as long as the longest of its label files, or where these
            only list frames, as its features.
        tasks: the tasks of the head.

    Raises:
        UserError: a cache lacks most of the labelled ids, or does not fit the labels.
    """
    ids = sorted({id for by_id in tracks.values() for id in by_id})
    for cache in caches:
        refuse_missing(cache, ids)
    lengths = [_length([by_id[id] for by_id in tracks.values() if id in by_id], caches, id) for id in ids]
    total, width = sum(lengths), sum(cache.dim for cache in caches)
    features = torch.zeros(total, width, dtype=torch.float16)
    valid = torch.zeros(total, len(caches), dtype=torch.bool)
    labels = {task.name: torch.full((total, task.label_width), float(task.marker)) for task in tasks}
    voted = {task.name for task in tasks for track in tracks.get(task.name, {}).values() if track.soft is not None}
    soft = {task.name: torch.zeros(total, task.out_dim) for task in tasks if task.name in voted}
    spans, rates, start = [], [], 0
    for id, length in zip(ids, lengths, strict=True):
        rows = slice(start, start + length)
        column = 0
        for number, cache in enumerate(caches):
            _check_length(cache, id, length)
            read = cache.read(id, length) if id in cache else Features.never_seen(length, cache.dim)
            features[rows, column : column + cache.dim] = torch.from_numpy(read.features)
            valid[rows, number] = torch.from_numpy(read.valid)
            column += cache.dim
        for task in tasks:
            track = tracks.get(task.name, {}).get(id)
            if track is not None:
                labels[task.name][start : start + len(track)] = torch.from_numpy(track.labels)
                if task.name in soft:
                    soft[task.name][start : start + len(track)] = torch.from_numpy(track.targets(task))
        spans.append((start, length))
        rates.append(frame_rate(read.time_s))
        start += length
    mask = {task.name: torch.from_numpy(task.mask(labels[task.name].numpy())) for task in tasks}
    return FrameTable(ids, spans, features, valid, labels, mask, rates, soft)


def refuse_missing(cache: FeatureCache, ids: Sequence[str]) -> None:
    """Print which sequences a cache lacks: they count as frames without a face.

    Raises:
        UserError: It lacks most of them, so that it is hardly the cache that was meant.
    """
    missing = [id for id in ids if id not in cache]
    if not missing:
        return
    text = f"the feature cache {cache.path} lacks {len(missing)} of {len(ids)} sequences ({some(missing, 3)})"
    if 2 * len(missing) > len(ids):
        raise UserError(f"{text}: extract their features, or give the labels of what it holds")
    print(f"note: {text}: they count as frames without a face")


def with_a_face(table: FrameTable, ids: Sequence[str]) -> list[str]:
    """The ids with a face in at least one frame. The number of others, which cannot teach anything, is printed."""
    seen = {id for id, faces in table.faces(ids).items() if faces.any()}
    kept = [id for id in ids if id in seen]
    if len(kept) < len(ids):
        lost = [id for id in ids if id not in seen]
        print(f"{len(lost)} of {len(ids)} training sequences have no face in any frame ({some(lost, 3)}): left out")
    return kept


def _length(tracks: Sequence[LabelTrack], caches: Sequence[FeatureCache], id: str) -> int:
    """Frames of a sequence."""
    ends = [cache.span(id)[1] for cache in caches if id in cache] if all(track.listed for track in tracks) else []
    return max(*ends, *map(len, tracks), 0)


def frame_rate(time_s: np.ndarray) -> float:
    """Frames per second from the median interval of the frame times; 30 if there is none."""
    step = median_step(time_s)
    return 1 / step if step > 1e-6 else 30.0


def _check_length(cache: FeatureCache, id: str, length: int) -> None:
    """Refuse a cache that extends beyond the labels or covers less than half of them: it is from another video.

    A second person may be seen for a short time only: the store has their rows from the first to the last face.
    """
    if id not in cache:
        return
    first, last = cache.span(id)
    if last > length + LENGTH_TOLERANCE or (base_video(id) == id and first == 1 and last < length / 2):
        raise UserError(
            f"{id} has {length} label lines, but {cache.path} holds its frames {first} to {last}: features and labels "
            "are not from the same video"
        )
