"""Corpus -> faces store: `python preprocessing/run.py --source DIR --out FACES`."""

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import tyro

from checkpoints.errors import UserError, guarded
from checkpoints.framing import TO_MEASURE
from wildaffect.report.bar import progress_bar


@dataclass
class Config:
    """Find, track and align the faces in videos and pictures, and write them as a faces store.

    To resume an interrupted run, give the same command again.
    """

    source: tyro.conf.UseAppendAction[list[str]]
    """A folder of videos or pictures, a single file, a Parquet/Arrow table, the root of an Aff-Wild2 release, AffectNet
    or RAF-DB, or hf:NAME for a Hugging Face data set. May be given several times."""
    out: Path
    """The faces store to write."""
    crops: bool = False
    """The pictures already are aligned faces; for an Aff-Wild2 release, read its crops instead of its videos."""
    size: Literal[112, 224] = 112
    """Side of the aligned faces in pixels."""
    workers: int = 0
    """Number of processes; 0: one per core."""
    shard: str = "1/1"
    """Which part of the work to do, i/n: run n of these on as many machines that share --out."""
    device: str = "cpu"
    """Where detection runs: cpu, cuda, cuda:1, ..."""
    framing: str = "auto"
    """Where the landmarks stand in the pictures: wildaffect, arcface, unknown, or the path of a faces store that is to
    be matched. auto: wildaffect; with --crops, as the detector measures it."""


def main() -> None:
    """Read the command line and run."""
    run(tyro.cli(Config, description=Config.__doc__))


def run(config: Config) -> None:
    """Make a faces store, or go on making it.

    Raises:
        UserError: A source is missing or empty, the store was begun with other settings, or the disk is full.
    """
    # Heavy, and `--help` needs none of them.
    from preprocessing import measure_framing, progress, shard, sources, workers

    part, parts = _part(config.shard)
    framing = measure_framing.chosen_framing(config.framing, crops=config.crops)
    load_detector = None
    if not config.crops or framing == TO_MEASURE:
        try:
            from preprocessing.mtcnn import MTCNN, check_device  # not installed everywhere
        except UserError:
            if not config.crops:
                raise
        else:
            check_device(config.device)
            load_detector = partial(MTCNN, config.device)
    items, renamed = sources.find_items(config.source, crops=config.crops)
    groups = sources.make_groups(items)
    settings = shard.Settings(config.size, config.crops, framing)
    config.out.mkdir(parents=True, exist_ok=True)
    with progress.locked(config.out):
        progress.begin(config.out, settings, groups)

    mine = groups[part - 1 :: parts]
    todo = [group for group in mine if not progress.is_finished(config.out, group)]
    processes = min(config.workers or os.cpu_count() or 1, max(len(todo), 1))
    print(
        f"{len(items)} items in {len(groups)} shards; part {config.shard}: {len(mine)} shards, "
        f"{len(mine) - len(todo)} already finished; {processes} workers"
    )
    if not todo and progress.is_complete(config.out, settings):
        print(f"{config.out} is already complete")
        return
    if todo:
        progress.reopen(config.out)
        gpu, aligning = config.device != "cpu", None if config.crops else load_detector
        logs = workers.make_shards(config.out, settings, todo, aligning, gpu=gpu, workers=processes)
        frames = 0
        with progress_bar(total=len(todo), unit="shard") as bar:
            for log in logs:
                frames += log["frames"]
                bar.set_postfix_str(f"{frames:,} frames, {frames / max(bar.format_dict['elapsed'], 1e-3):.0f}/s")
                bar.update()

    if all(progress.is_finished(config.out, group) for group in groups):
        with progress.locked(config.out):
            progress.complete(config.out, settings, load_detector, config.source, groups, renamed)
    else:
        print("other parts are still missing; the last one to finish completes the store")


def _part(text: str) -> tuple[int, int]:
    """Read `i/n`."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    part, parts = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= part <= parts:
        raise UserError(f"--shard {text}: expected i/n with 1 <= i <= n, such as 1/8")
    return part, parts


if __name__ == "__main__":
    guarded(main)
