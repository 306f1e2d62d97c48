"""Corpus -> faces store: `python preprocessing/run.py --source DIR --out FACES`."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import tyro

from checkpoints.artifact import read_json, write_json
from checkpoints.errors import UserError, guarded
from preprocessing.detect import check_installed
from preprocessing.faces import DATA, HEADER, finish_store
from preprocessing.items import Group
from preprocessing.labelled import write_labels
from preprocessing.rows import Found
from preprocessing.shard import AT_ONCE, LOG, Settings, find_together, make_shard
from preprocessing.sheet import SHEET, write_sheet
from preprocessing.sources import find_items, make_groups
from wildaffect.tasks.labels import is_synthetic

CONFIG = "config.json"
LOCK = ".lock"


@dataclass
class Config:
    """Find, follow and align the faces of videos and pictures, and write them as a faces store.

    A run that was interrupted goes on where it was when the same command is given again.
    """

    source: tyro.conf.UseAppendAction[list[str]]
    """Folder of videos or pictures, file, Parquet/Arrow table, root of an Aff-Wild2 release, of AffectNet or RAF-DB, or
    hf:NAME of a Hugging Face data set. May be given several times."""
    out: Path
    """The faces store to write."""
    crops: bool = False
    """The pictures already are aligned faces; of a release, take its crops instead of its videos."""
    size: Literal[112, 224] = 112
    """Side of the aligned faces in pixels."""
    workers: int = 0
    """Processes; 0: one per core."""
    shard: str = "1/1"
    """Which part of the work to do, i/n: run n of these on as many machines that share --out."""
    device: str = "cpu"
    """Where detection runs: cpu, cuda, cuda:1, ..."""


def main() -> None:
    """Read the command line and run."""
    run(tyro.cli(Config, description=Config.__doc__))


def run(config: Config) -> None:
    """Make (or go on making) a faces store.

    Raises:
        UserError: A source is missing or empty, the store was begun otherwise, or the disk is full.
    """
    part, parts = _part(config.shard)
    if not config.crops:
        check_installed(config.device)
    items, renamed = find_items(config.source, crops=config.crops)
    groups = make_groups(items)
    settings = Settings(config.size, config.crops)
    config.out.mkdir(parents=True, exist_ok=True)
    with (config.out / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # parts of an array job may begin at the same moment
        _begin(config.out, settings, groups)

    mine = groups[part - 1 :: parts]
    todo = [group for group in mine if not _is_finished(config.out, group)]
    workers = min(config.workers or os.cpu_count() or 1, max(len(todo), 1))
    print(
        f"{len(items)} items in {len(groups)} shards; part {config.shard}: {len(mine)} shards, "
        f"{len(mine) - len(todo)} finished already; {workers} workers"
    )
    if todo:
        (config.out / HEADER).unlink(missing_ok=True)
        _work(config, settings, todo, workers)
    elif (config.out / HEADER).exists() and (config.out / SHEET).exists():
        print(f"{config.out} is complete already")
        return
    if all(_is_finished(config.out, group) for group in groups):
        with (config.out / LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two parts may end at the same moment
            try:
                _finish(config, settings, groups, renamed)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                (config.out / HEADER).unlink(missing_ok=True)
                raise UserError(_full(config.out)) from None
    else:
        print("other parts are still missing; the last one to end completes the store")


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    part, parts = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= part <= parts:
        raise UserError(f"--shard {text}: expected i/n with 1 <= i <= n, such as 1/8")
    return part, parts


def _begin(out: Path, settings: Settings, groups: list[Group]) -> None:
    """Refuse a store of other settings or sources; forget shards whose sources changed."""
    path, wanted = out / CONFIG, asdict(settings)
    if not path.exists():
        # Hidden files do not count: a run that was killed at once leaves nothing but those.
        if any(not item.name.startswith(".") for item in out.iterdir()):
            raise UserError(f"--out {out} is not empty and no faces store: choose another directory")
        write_json(path, wanted)
    elif (begun := read_json(path)) != wanted:
        raise UserError(f"--out {out} was begun with {begun}, not {wanted}: choose another directory")
    names = {group.name for group in groups}
    sources = {item.name for group in groups for item in group.items}
    for log in sorted((out / LOG).glob("*.json")):
        if log.stem in names:
            continue
        others = set(read_json(log)["sources"])
        if not others & sources:
            raise UserError(
                f"--out {out} also holds {sorted(others)[0]!r}, which is not among the sources now: "
                "give all sources, or another directory"
            )
        (out / HEADER).unlink(missing_ok=True)
        log.unlink()
        (out / DATA / f"{log.stem}.parquet").unlink(missing_ok=True)


def _is_finished(out: Path, group: Group) -> bool:
    log = out / LOG / f"{group.name}.json"
    return log.exists() and read_json(log)["digest"] == group.digest


def _work(config: Config, settings: Settings, todo: list[Group], workers: int) -> None:
    """Make the shards, on several processes if asked; a shard that kills its process does not stop the others."""
    from tqdm import tqdm

    frames = 0
    with tqdm(total=len(todo), unit="shard") as bar:
        for log in _logs(config, settings, todo, workers):
            frames += log["frames"]
            bar.set_postfix_str(f"{frames} frames, {frames / max(bar.format_dict['elapsed'], 1e-3):.0f}/s")
            bar.update()


def _logs(config: Config, settings: Settings, todo: list[Group], workers: int) -> Iterator[dict[str, Any]]:
    arguments = (config.out, settings, config.device)
    bundles = _bundles(todo, config.device)
    if workers == 1:
        with _one_thread():
            _start_worker(*arguments)
            for bundle in bundles:
                yield from _make(bundle)
        return
    left = dict.fromkeys(todo)
    try:
        yield from _pool(arguments, bundles, workers, left)
    except BrokenProcessPool:
        for group in [group for group in left if _is_finished(config.out, group)]:  # its answer was lost, it was not
            left.pop(group)
            yield read_json(config.out / LOG / f"{group.name}.json")
        # One of the shards in progress took its process down. Which one shows when they run one at a time; then several
        # processes go on with the rest. Bundles are begun in their order, so those in progress come first.
        waiting = [[group for group in bundle if group in left] for bundle in bundles]
        in_progress = [bundle for bundle in waiting if bundle][:workers]
        for group in [group for bundle in in_progress for group in bundle]:
            try:
                yield from _pool(arguments, [[group]], 1, left)
            except BrokenProcessPool:
                left.pop(group, None)
                yield _give_up(config.out, group)
        yield from _logs(config, settings, list(left), workers) if left else ()


def _bundles(todo: list[Group], device: str) -> list[list[Group]]:
    """What a process does at a time, largest first, so that no long video begins when the others end.

    On a GPU several long videos are done together, so that batches fill across them; what the batches hold may change
    the last bit of a result. On a CPU it is one shard, whose bytes depend on nothing else.
    """
    ordered = sorted(todo, key=lambda group: -sum(item.size for item in group.items))
    if device == "cpu":
        return [[group] for group in ordered]
    alone = [group for group in ordered if len(group.items) == 1 and group.items[0].kind in ("video", "frames")]
    rest = [[group] for group in ordered if group not in alone]
    return [alone[start : start + AT_ONCE] for start in range(0, len(alone), AT_ONCE)] + rest


def _pool(
    arguments: tuple[Any, ...], bundles: list[list[Group]], workers: int, left: dict[Group, None]
) -> Iterator[dict[str, Any]]:
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


@contextmanager
def _one_thread() -> Iterator[None]:
    """Give the caller's process its threads back afterwards."""
    import cv2
    import torch

    threads = torch.get_num_threads(), cv2.getNumThreads()
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def _give_up(out: Path, group: Group) -> dict[str, Any]:
    problem = "reading it ended the process (out of memory, or a fault in a decoder)"
    log = {
        "digest": group.digest,
        "sources": sorted({item.name for item in group.items}),
        "items": len(group.items),
        "frames": 0,
        "faces": 0,
        "no_face": [],
        "problems": [{"source": i.name, "video": i.video, "problem": problem} for i in group.items],
    }
    write_json(out / LOG / f"{group.name}.json", log)
    return log


_worker: dict[str, Any] = {}


def _start_worker(out: Path, settings: Settings, device: str) -> None:
    """Load the networks once per process; cores are shared by processes, not by threads within them."""
    import cv2

    cv2.setNumThreads(1)
    detector = None
    if not settings.crops:
        import torch

        from preprocessing.detect import MTCNN

        torch.set_num_threads(1)
        detector = MTCNN(device)
    _worker.update(out=out, settings=settings, detector=detector)


def _make(bundle: list[Group]) -> list[dict[str, Any]]:
    out, settings, detector = _worker["out"], _worker["settings"], _worker["detector"]
    try:
        ready: list[Found | None] = [None] * len(bundle)
        if len(bundle) > 1:
            ready = [*find_together(out, bundle, settings, detector)]
        return [make_shard(out, group, settings, detector, found) for group, found in zip(bundle, ready, strict=True)]
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(_full(out)) from None
        raise


def _full(out: Path) -> str:
    return f"the disk of {out} is full: make room and give the same command again; finished shards are kept"


def _finish(config: Config, settings: Settings, groups: list[Group], renamed: list[dict[str, str]]) -> None:
    """Complete the store: header and data sheet."""
    logs = [read_json(config.out / LOG / f"{group.name}.json") for group in groups]
    problems = sorted(renamed + [p for log in logs for p in log["problems"]], key=lambda p: (p["source"], p["problem"]))
    items, frames, faces = (sum(log[name] for log in logs) for name in ("items", "frames", "faces"))
    if not frames:
        shutil.rmtree(config.out / LOG)
        (config.out / CONFIG).unlink()
        (config.out / LOCK).unlink()
        raise UserError(f"no frame could be read: {problems[0]['source']} {problems[0]['problem']}")
    write_labels(config.out, [item for group in groups for item in group.items])
    finish_store(
        config.out,
        made_by="preprocessing/run.py",
        config={**asdict(settings), "sources": sorted({item.name.split("/")[0] for g in groups for item in g.items})},
        image_size=config.size,
        problems=problems,
        items=items,
        frames=frames,
        faces=faces,
        synthetic=all(is_synthetic(source) for source in config.source),
    )
    write_sheet(config.out, read_json(config.out / HEADER), [image for log in logs for image in log["no_face"]])
    for problem in problems[:10]:
        print(f"problem: {problem['source']!r} {problem['problem']}")
    if len(problems) > 10:
        print(f"... and {len(problems) - 10} more problems in {config.out / HEADER}")
    print(f"{config.out}: {items} items, {frames} frames, {faces} faces")


if __name__ == "__main__":
    guarded(main)
