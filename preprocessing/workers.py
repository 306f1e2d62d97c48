"""Makes the shards of a store, in this process or in several; a shard that kills its process does not stop the rest."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import torch

from checkpoints.artifact import write_json
from preprocessing.detect import Detector
from preprocessing.faces import DATA
from preprocessing.items import Group
from preprocessing.progress import explain_full_disk, is_finished
from preprocessing.rows import Found
from preprocessing.shard import AT_ONCE, LOG, Settings, find_together, make_shard, read_log

Log = dict[str, Any]


def make_shards(
    store: Path,
    settings: Settings,
    groups: Sequence[Group],
    load_detector: Callable[[], Detector] | None,
    *,
    gpu: bool,
    workers: int,
) -> Iterator[Log]:
    """Make the shards of some groups, and yield the log of each one as it is finished.

    `load_detector` loads the detector in each process; it is None if the faces are already aligned. `gpu` says whether
    the detector runs on a GPU. With one worker, everything happens in this process.
    """
    arguments = (store, settings, load_detector)
    bundles = _bundles(groups, gpu=gpu and load_detector is not None)
    if workers == 1:
        with _threads_restored():
            _start_worker(*arguments)
            for bundle in bundles:
                yield from _make(bundle)
        return
    left = dict.fromkeys(groups)
    try:
        yield from _pool(arguments, bundles, workers, left)
    except BrokenProcessPool:
        for group in [group for group in left if is_finished(store, group)]:  # finished, but its log did not come back
            left.pop(group)
            yield dict(read_log(store, group.name))
        # One of the shards in progress killed its process. Running them one at a time shows which; then several
        # processes do the rest. Bundles start in order, so those in progress come first.
        waiting = [[group for group in bundle if group in left] for bundle in bundles]
        in_progress = [bundle for bundle in waiting if bundle][:workers]
        for group in [group for bundle in in_progress for group in bundle]:
            try:
                yield from _pool(arguments, [[group]], 1, left)
            except BrokenProcessPool:
                left.pop(group, None)
                yield _give_up(store, group)
        if left:
            yield from make_shards(store, settings, list(left), load_detector, gpu=gpu, workers=workers)


def _bundles(groups: Sequence[Group], *, gpu: bool) -> list[list[Group]]:
    """The groups that one process does at a time, largest first, so that no long video starts last.

    On a GPU, several long videos are done together to fill the batches; the last bit of a result may depend on what
    else is in its batch. On a CPU it is one shard at a time, whose bytes depend on nothing else.
    """
    ordered = sorted(groups, key=lambda group: -sum(item.size for item in group.items))
    if not gpu:
        return [[group] for group in ordered]
    alone = [group for group in ordered if len(group.items) == 1 and group.items[0].kind in ("video", "frames")]
    rest = [[group] for group in ordered if group not in alone]
    return [alone[start : start + AT_ONCE] for start in range(0, len(alone), AT_ONCE)] + rest


def _pool(
    arguments: tuple[Any, ...], bundles: list[list[Group]], workers: int, left: dict[Group, None]
) -> Iterator[Log]:
    """Make the shards of the bundles in a pool, and take each finished group out of `left`."""
    # `spawn`: forking a process that has used torch's threads can hang.
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, arguments) as pool:
        futures = {pool.submit(_make, bundle): bundle for bundle in bundles}
        try:
            for future in as_completed(futures):
                logs = future.result()
                for group in futures[future]:
                    left.pop(group)
                yield from logs
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _give_up(store: Path, group: Group) -> Log:
    """Write the log of a group that cannot be read."""
    problem = "reading it ended the process (out of memory, or a fault in a decoder)"
    log = {
        "digest": group.digest,
        "hash": "",
        "sources": sorted({item.name for item in group.items}),
        "items": len(group.items),
        "frames": 0,
        "faces": 0,
        "no_face": [],
        "problems": [{"source": i.name, "video": i.video, "problem": problem} for i in group.items],
    }
    (store / DATA / f"{group.name}.parquet").unlink(missing_ok=True)  # from an earlier run
    write_json(store / LOG / f"{group.name}.json", log)
    return log


@contextmanager
def _threads_restored() -> Iterator[None]:
    """Give this process its threads back afterwards."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


_worker: dict[str, Any] = {}  # what a worker keeps from one bundle to the next


def _start_worker(store: Path, settings: Settings, load_detector: Callable[[], Detector] | None) -> None:
    """Load the networks once per process. Each process uses one thread, because the processes share the cores."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    detector = load_detector() if load_detector else None
    _worker.update(store=store, settings=settings, detector=detector)


def _make(bundle: list[Group]) -> list[Log]:
    """Make the shards of a bundle, in a worker."""
    store, settings, detector = _worker["store"], _worker["settings"], _worker["detector"]
    with explain_full_disk(store):
        ready: list[Found | None] = [None] * len(bundle)
        if len(bundle) > 1:
            ready = [*find_together(store, bundle, settings, detector)]
        return [make_shard(store, group, settings, detector, found) for group, found in zip(bundle, ready, strict=True)]
