"""Makes the shards of a store, in this process or in several; a shard that kills its process does not stop the rest."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import torch

from checkpoints.parent import end_with_parent
from preprocessing.detect import Detector
from preprocessing.items import Group
from preprocessing.rows import Found
from preprocessing.shard import AT_ONCE, Settings, find_together, give_up, make_shard

Log = dict[str, Any]
Bundle = Sequence[Group]
"""Groups that a process does together."""


@dataclass(frozen=True)
class Job:
    """What a process needs to know to make shards of a store.

    Attributes:
        store: The store.
        settings: What determines its content.
        load_detector: The detector's class and its arguments; None if the faces are already aligned.
        gpu: There is a detector, and it runs on a GPU.
    """

    store: Path
    settings: Settings
    load_detector: partial[Any] | None
    gpu: bool = False

    def bundles(self, groups: Sequence[Group]) -> Sequence[Bundle]:
        """The groups that a process does at a time, largest first, so that no long video starts last.

        On a GPU, several long videos are done together to fill the batches; the last bit of a result may depend on
        what else is in its batch. On a CPU it is one shard at a time, whose bytes depend on nothing else.
        """
        ordered = sorted(groups, key=lambda group: -sum(item.size for item in group.items))
        if not self.gpu:
            return [[group] for group in ordered]
        alone = [group for group in ordered if len(group.items) == 1 and group.items[0].kind in ("video", "frames")]
        rest = [[group] for group in ordered if group not in alone]
        return [alone[start : start + AT_ONCE] for start in range(0, len(alone), AT_ONCE)] + rest

    def make(self, bundle: Bundle) -> list[Log]:
        """Make the shards of a bundle in this process, with one thread, because the processes share the cores."""
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        load = self.load_detector
        detector = None if load is None else _loaded(load.func, *load.args)
        ready: list[Found | None] = [None] * len(bundle)
        if len(bundle) > 1 and detector is not None:
            ready = [*find_together(self.store, bundle, self.settings, detector)]
        return [
            make_shard(self.store, group, self.settings, detector, found)
            for group, found in zip(bundle, ready, strict=True)
        ]

    def give_up(self, group: Group) -> Log:
        """Write the log of a group that ends every process that reads it."""
        return give_up(self.store, group, "reading it ended the process (out of memory, or a fault in a decoder)")


@cache
def _loaded(detector: Callable[..., Detector], *arguments: Any) -> Detector:
    """The detector, loaded once per process."""
    return detector(*arguments)


def make_shards(job: Job, groups: Sequence[Group], workers: int) -> Iterator[Log]:
    """Make the shards of some groups, and yield the log of each one as it is finished.

    With one worker, everything happens in this process.
    """
    bundles = job.bundles(groups)
    if workers == 1:
        with _threads_restored():
            for bundle in bundles:
                yield from job.make(bundle)
        return
    broken: list[Group] = []
    yield from _in_processes(job, bundles, workers, broken)
    for group in broken:  # once more and alone, because memory may have run out for another's sake
        again: list[Group] = []
        yield from _in_processes(job, [[group]], 1, again)
        if again:
            yield job.give_up(group)


def _in_processes(job: Job, bundles: Sequence[Bundle], workers: int, broken: list[Group]) -> Iterator[Log]:
    """Make the shards of the bundles, and add the groups that ended their process to `broken`.

    Every process is a pool of its own with one bundle at a time, so that it is known which bundle ended it.
    """
    idle = [_process() for _ in range(workers)]
    busy: dict[Future[list[Log]], tuple[ProcessPoolExecutor, Bundle]] = {}
    todo = iter(bundles)
    try:
        while True:
            while idle and (bundle := next(todo, None)):
                process = idle.pop()
                busy[process.submit(job.make, bundle)] = process, bundle
            if not busy:
                return
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                process, bundle = busy.pop(future)
                try:
                    logs = future.result()
                except BrokenProcessPool:
                    process, logs = _process(), []
                    broken += bundle
                idle.append(process)
                yield from logs
    finally:
        for process in [*idle, *(process for process, _ in busy.values())]:
            process.shutdown(wait=False, cancel_futures=True)


def _process() -> ProcessPoolExecutor:
    """One process, started when it is first needed."""
    # `spawn`: forking a process that has used torch's threads can hang.
    return ProcessPoolExecutor(1, get_context("spawn"), end_with_parent)


@contextmanager
def _threads_restored() -> Iterator[None]:
    """Give this process its threads back afterwards."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
