"""Corpus -> faces store: `python preprocessing/run.py --source DIR --out FACES`."""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import tyro

from checkpoints.cores import usable_cores
from checkpoints.errors import UserError, guarded
from checkpoints.framing import TO_MEASURE
from checkpoints.lock import locked
from checkpoints.ranges import check_ranges
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
    """Number of processes; 0: one per core that this process may use."""
    ray: str = ""
    """Run on a Ray cluster instead: auto, or its address HOST:PORT."""
    device: str = "cpu"
    """Where detection runs: cpu, cuda, cuda:1, ...; with --ray, cpu or cuda."""
    framing: str = "auto"
    """Where the landmarks lie in the pictures: wildaffect, arcface, unknown, or the path of a faces store that is to
    be matched. auto: wildaffect; with --crops, as the detector measures it."""


def main() -> None:
    """Read the command line and run."""
    run(tyro.cli(Config, description=Config.__doc__))


def run(config: Config) -> None:
    """Make a faces store, or go on making it.

    Raises:
        UserError: A source is missing or empty, or the store was started with other settings or is being written.
        OSError: The disk is full.
    """
    # Heavy, and `--help` needs none of them.
    from preprocessing import measure_framing, progress, shard, sources, workers

    check_ranges(config)
    if config.ray and config.workers:
        raise UserError("--workers counts processes of this machine: leave it out with --ray, which uses the cluster")
    if config.ray:
        from preprocessing import on_ray  # not installed everywhere
    if config.ray and config.device not in ("cpu", "cuda"):
        raise UserError(f"--device {config.device}: with --ray, give cpu or cuda; each task sees one GPU of its own")
    framing = measure_framing.chosen_framing(config.framing, crops=config.crops)
    load_detector = None
    if not config.crops or framing == TO_MEASURE:
        try:
            from preprocessing.mtcnn import MTCNN, check_device  # not installed everywhere
        except UserError:
            if not config.crops:
                raise
        else:
            if not config.ray:
                check_device(config.device)
            # The machines of a cluster check theirs. This one may have no GPU, and only measures the framing of crops.
            load_detector = partial(MTCNN, "cpu" if config.ray and config.crops else config.device)
    items, renamed = sources.find_items(config.source, crops=config.crops)
    groups = sources.make_groups(items)
    settings = shard.Settings(config.size, config.crops, framing)
    aligning = None if config.crops else load_detector
    job = workers.Job(config.out, settings, aligning, gpu=aligning is not None and config.device != "cpu")
    with ExitStack() as stack:
        if config.ray:
            stack.enter_context(on_ray.connected(config.ray))
        stack.enter_context(locked(config.out))
        progress.begin(config.out, settings, groups)
        todo = [group for group in groups if not progress.is_finished(config.out, group)]
        processes = min(config.workers or usable_cores(), max(len(todo), 1))
        print(
            f"{len(items)} items in {len(groups)} shards, {len(groups) - len(todo)} already finished; "
            + (f"Ray at {config.ray}" if config.ray else f"{processes} workers")
        )
        if not todo and progress.is_complete(config.out, settings):
            print(f"{config.out} is already complete")
            return
        progress.reopen(config.out)
        logs = on_ray.make_shards(job, todo) if config.ray else workers.make_shards(job, todo, processes)
        frames = 0
        with progress_bar(total=len(todo), unit="shard") as bar:
            for log in logs:
                frames += log["frames"]
                bar.set_postfix_str(f"{frames:,} frames, {frames / max(bar.format_dict['elapsed'], 1e-3):.0f}/s")
                bar.update()
        progress.complete(config.out, settings, load_detector, config.source, groups, renamed)


if __name__ == "__main__":
    guarded(main)
