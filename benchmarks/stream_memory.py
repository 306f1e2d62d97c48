"""Does the memory of a stage 1 loader worker stay constant over an epoch, with a local store and a streamed one?

    python benchmarks/stream_memory.py --out benchmarks/results/stream_memory.json

Two stores of drawn faces with noise are made, each larger than what a worker holds. One worker prepares every crop of
an epoch, and its anonymous memory is read at regular intervals (without file pages, which the system can drop). Growth
is measured from the end of the first third, when blocks and buffers have filled once, to the end. The streamed stores
have `file://` addresses and are read through fsspec, as on S3; two of them are mixed by weights.
"""

import multiprocessing
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tyro

from benchmarks.loader import face
from checkpoints.artifact import write_json
from checkpoints.errors import guarded
from preprocessing.write_faces import finish_store, write_shard
from pretrain.recipes import RECIPES
from pretrain.train import batches, open_faces
from wildaffect.training.batches import BatchPlan

PATCHES = 64


@dataclass
class Config:
    """Measure a worker's memory."""

    out: Path | None = None
    """Where to record the result as JSON."""
    pictures: int = 40_000
    """Pictures of both stores."""
    shards: int = 40
    """Shards of each store."""
    batch_size: int = 128
    """Pictures per batch."""


def main(config: Config) -> dict[str, Any]:
    """Measure and record."""
    with tempfile.TemporaryDirectory() as folder:
        stores = [Path(folder) / name for name in ("faces", "others")]
        size = sum(make_store(store, replace(config, pictures=config.pictures // 2)) for store in stores)
        remote = [f"file://{store}" for store in stores]
        result: dict[str, Any] = {
            "what": "anonymous memory of the one worker over an epoch, MiB; growth after the first third",
            "pictures": config.pictures,
            "store_mib": size / 2**20,
            "on_disk": measure(stores[:1], (), config),
            "streamed": measure(remote[:1], (), config),
            "mixed": measure(remote, (1, 3), config),
        }
    print(result)
    if config.out is not None:
        write_json(config.out, result)
    return result


def make_store(path: Path, config: Config) -> int:
    """Write the store and return the bytes of its pictures."""
    drawn = [face(seed) for seed in range(64)]
    rng = np.random.default_rng(0)
    per_shard, size = config.pictures // config.shards, 0
    for shard in range(config.shards):
        rows = []
        for frame in range(1, per_shard + 1):
            # A JPEG may end in anything: no two pictures are equal, so that Arrow cannot keep one for all.
            image = drawn[rng.integers(len(drawn))] + rng.bytes(64)
            size += len(image)
            rows.append({"video": f"v{shard}", "subject": "", "frame": frame, "time_s": frame / 30, "image": image})
        write_shard(path, f"s{shard:04d}", rows)
    finish_store(path, made_by="benchmarks/stream_memory.py", config={}, image_size=256, problems=[], synthetic=True)
    return size


def measure(stores: Sequence[Path | str], weights: tuple[float, ...], config: Config) -> dict[str, Any]:
    """Memory of the worker while it goes through an epoch."""
    recipe = replace(RECIPES["demo"][1], faces=(*stores,), weights=weights, batch_size=config.batch_size, workers=1)
    faces = open_faces(recipe)
    plan = BatchPlan.derive(
        count=len(faces), batch_size=config.batch_size, most=config.batch_size, rank=0, world=1, seed=0
    )
    steps = len(faces) // config.batch_size
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    used, worker = [], None
    for step, batch in enumerate(batches(recipe, faces, plan, 0, steps, PATCHES)):
        assert batch["images"].shape[0] == config.batch_size
        if worker is None:
            workers = {child.pid for child in multiprocessing.active_children()} - before
            assert len(workers) == 1, f"expected one worker, found {workers}"
            worker = psutil.Process(workers.pop())
        if step % max(1, steps // 40) == 0:
            memory = worker.memory_info()
            used.append((memory.rss - memory.shared) / 2**20)
    settled = used[len(used) // 3 :]
    return {"steps": steps, "mib": used, "growth_mib": settled[-1] - settled[0], "largest_mib": max(used)}


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))
