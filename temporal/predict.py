"""From features to one prediction per frame. Overlapping windows are averaged before decoding, then smoothed."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from checkpoints.errors import UserError
from features.cache import FeatureCache, Features
from temporal.caches import pick_caches
from temporal.data import FrameTable, frame_rate, take
from temporal.heads import Head
from temporal.network import HeadNetwork
from temporal.smoothing import RAW, Predicted
from temporal.windows import FrameAverage, Windows
from wildaffect.tasks import TASKS

BATCH_FRAMES = {"cpu": 1024, "cuda": 8192}
"""Frames per forward pass. On a CPU more frames are not faster and only use more memory."""

ByTask = dict[str, list[Predicted]]
"""Task name -> predictions of labelled sequences."""


def predict_sequence(
    head: Head | Sequence[Head], features: np.ndarray, valid: np.ndarray, *, rate: float = 30.0, smooth: bool = True
) -> dict[str, np.ndarray]:
    """Predict every frame of one sequence.

    Args:
        head: one head, or several whose values are averaged (each with its own smoothing and share).
        features: `[T, D]`, gaps filled with the nearest frame; several caches concatenated in the head's order.
        valid: `[T]` or `[T, C]` bool, true for frames with a face, for each cache.
        rate: frames per second, for smoothing widths in seconds.
        smooth: false for the raw values.

    Returns:
        task name -> values `[T, out_dim]` float32: valence and arousal, or probabilities. `Head.decode` turns them into
        labels.

    Raises:
        UserError: the features are not as wide as the head expects.
    """
    if not isinstance(head, Head):
        every = [predict_sequence(one, features, valid, rate=rate, smooth=smooth) for one in head]
        return average(head, every)
    expected = sum(item.dim for item in head.inputs)
    if features.ndim != 2 or features.shape[1] != expected:
        raise UserError(f"the features have the shape {tuple(features.shape)}, but the head reads [T, {expected}]")
    flags = torch.from_numpy(np.asarray(valid, bool)).reshape(len(features), -1)
    flags = flags.expand(-1, len(head.inputs))
    values = predict_spans(
        head.network, torch.as_tensor(np.ascontiguousarray(features)), flags, [(0, len(features))], head
    )
    arrays = {name: item.numpy() for name, item in values.items()}
    if not smooth:
        return arrays
    return {
        name: head.smoothing[name].on_values(item, rate) if name in head.smoothing else item
        for name, item in arrays.items()
    }


def average(heads: Sequence[Head], every: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Mean of several heads' values, task by task, in which each head counts as much as its share."""
    names = dict.fromkeys(name for values in every for name in values)
    counted = {name: counting(heads, name) for name in names}
    return {
        name: np.average([every[n][name] for n in shares], axis=0, weights=list(shares.values()))
        for name, shares in counted.items()
    }


def counting(heads: Sequence[Head], task: str) -> dict[int, float]:
    """Number of each head that counts in the average of a task -> its share."""
    shares = {n: head.share(task) for n, head in enumerate(heads) if head.share(task)}
    # A head that counted for nothing among others may be used alone.
    return shares or {n: 1.0 for n, head in enumerate(heads) if any(own.name == task for own in head.tasks)}


@torch.inference_mode()
def predict_spans(
    network: HeadNetwork, features: torch.Tensor, valid: torch.Tensor, spans: list[tuple[int, int]], head: Head
) -> dict[str, torch.Tensor]:
    """Predict raw values of every frame of some spans of a table, expressions under the head's stated prior.

    Args:
        network: the head's network, or another state of it (a moving average).
        features: `[N, D]` on any device; batches are moved to the network's device.
        valid: `[N, C]` bool.
        spans: (first row, length) of each sequence.
        head: gives the tasks and the prior.

    Returns:
        task name -> `[N, out_dim]` float32 on the CPU; NaN for rows outside all spans.

    Raises:
        UserError: A value is not finite, which would be decoded as some class and smoothed into its neighbours.
    """
    a = network.architecture
    device = network.mean.device
    ending = a.readout == "last"
    windows = Windows.cover(spans, a.window, 1 if ending else a.stride, ending)
    averages = {task.name: FrameAverage(len(features), task.out_dim, device) for task in head.tasks}
    was_training = network.training
    network.eval()
    step = max(1, BATCH_FRAMES.get(device.type, 8192) // a.window)
    for start in range(0, len(windows), step):
        batch = windows[start : start + step]
        rows, inside, predicted = (torch.from_numpy(item).to(device) for item in (*batch.rows(), batch.predicted()))
        outputs = network(take(features, rows), take(valid, rows), inside).float()
        for task in head.tasks:
            averages[task.name].add(rows, predicted, task.activate(head.split(outputs)[task.name]))
    network.train(was_training)
    values = {name: item.mean().cpu() for name, item in averages.items()}
    for name, item in values.items():
        for start, length in spans:
            bad = ~item[start : start + length].isfinite().all(dim=1)
            if bad.any():
                raise UserError(
                    f"the {name} head predicts no finite value for {int(bad.sum()):,} of {length:,} frames of a "
                    f"sequence, first for frame {int(bad.nonzero()[0]) + 1}: its weights or the features are damaged"
                )
    if head.prior is not None and "expr" in values:
        values["expr"] = torch.from_numpy(head.prior.restated(values["expr"].numpy()))
    return values


def predict_labelled(head: Head, table: FrameTable, ids: Sequence[str], network: HeadNetwork | None = None) -> ByTask:
    """Predict raw values of labelled sequences, with the given state of the head's network (None: its own)."""
    spans = [table.spans[i] for i in table.select(ids)]
    values = predict_spans(network or head.network, table.features, table.valid, spans, head)
    return {name: table.predicted(name, item.numpy(), ids) for name, item in values.items()}


def predict_cached(
    heads: Sequence[Head], caches: Sequence[FeatureCache], id: str, length: int | None = None, smooth: bool = True
) -> tuple[dict[str, np.ndarray], Features]:
    """Predict one cached sequence with the average of several heads.

    Args:
        heads: each reads the caches that it was trained on.
        caches: open caches.
        id: the sequence. If its length is given it need not be cached: then none of its frames has a face.
        length: number of frames from frame 1 (an example file's last frame); None for the cached frames.
        smooth: false for raw values.

    Returns:
        task name -> values `[T, out_dim]`, and what was read from the first head's first cache, valid where any of the
        head's caches is.
    """
    every, first = [], None
    for head in heads:
        read = [
            Features.never_seen(length, cache.dim) if length and id not in cache else cache.read(id, length)
            for cache in pick_caches(head, caches)
        ]
        first = first or replace(read[0], valid=np.any([item.valid for item in read], axis=0))
        features = read[0].features if len(read) == 1 else np.concatenate([item.features for item in read], axis=1)
        valid = np.stack([item.valid for item in read], axis=1)
        every.append(predict_sequence(head, features, valid, rate=frame_rate(read[0].time_s), smooth=smooth))
    if first is None:
        raise UserError("no head was given")
    return average(heads, every), first


def thresholds_of(heads: Sequence[Head]) -> np.ndarray | None:
    """The heads' mean AU thresholds `[12]`, or None for 0.5."""
    chosen = [head.thresholds for head in heads if head.thresholds is not None]
    return np.mean(chosen, axis=0) if chosen else None


def decode(heads: Sequence[Head], task: str, values: np.ndarray, rate: float) -> np.ndarray:
    """Decode averaged values `[T, out_dim]` with the heads' mean thresholds and the first head's mode filter."""
    able = [heads[n] for n in counting(heads, task)]
    thresholds = thresholds_of(able) if task == "au" else None
    return able[0].smoothing.get(task, RAW).on_decoded(TASKS[task].decode(values, thresholds), rate)
