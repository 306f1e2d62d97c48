"""What the index and the sampler of stage 1 cost at a million, a hundred million and a billion faces.

    python benchmarks/billion.py --folder SCRATCH --out benchmarks/results/billion.json

The stores are real but for their pictures, which are one byte long: shards of 2,048 rows (a part of a table, or a video
of one to two minutes) that are hard links to a few files, and a header that lists every one of them. Each is opened as
a streamed store and sampled as 64 workers would, at the first step and at the last one of an epoch. The smallest is
opened as a local one at the end, whose index is in memory row by row.
"""

import gc
import json
import os
import pickle
import resource
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import tyro
from safetensors.torch import save_file

from checkpoints.artifact import write_json, write_sealed
from checkpoints.errors import guarded
from preprocessing.faces import DATA, HEADER
from preprocessing.write_faces import finish_store, write_shard
from pretrain import streaming
from pretrain.mixture import FacesMixture
from pretrain.streaming import StreamedCrops, StreamedMixture
from wildaffect.training.batches import BatchPlan, epoch_order
from wildaffect.training.images import RandomCrop

ROWS = 2048
LINKS = 60_000
"""Names of one file; ext4 allows 65,000."""
LANES, BATCH = 64, 4096


@dataclass
class Config:
    """Measure the index and the sampler."""

    folder: Path
    """Where the stores are made; a billion faces need half a million directory entries."""
    out: Path | None = None
    """Where to record the result as JSON."""
    faces: tuple[int, ...] = (1_000_000, 100_000_000, 1_000_000_000)
    """Sizes of the stores."""


class Numbers(StreamedCrops):
    """The samples' numbers in place of their crops."""

    def _crop(self, held: list[tuple[int, bytes]], place: int, epoch: int) -> dict[str, Any]:
        return {"number": held[place][0]}


def main(config: Config) -> dict[str, Any]:
    """Measure and record."""
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        template = make_shard(Path(folder) / "template")
        result: dict[str, Any] = {"what": "index and sampler of stage 1 by number of faces", "stores": []}
        for faces in sorted(config.faces):
            store = Path(folder) / str(faces)
            build(store, template, -(-faces // ROWS))
            result["stores"].append({"faces": faces, **streamed(store)})
            print(result["stores"][-1], flush=True)
            if faces != min(config.faces):
                shutil.rmtree(store)
        result["local"] = local(Path(folder) / str(min(config.faces)))
        print(result["local"])
        result["checkpoint_mb_per_s"] = checkpoint_rate(Path(folder))
    print(result["checkpoint_mb_per_s"])
    if config.out is not None:
        write_json(config.out, result)
    return result


def make_shard(store: Path) -> Path:
    """A finished store with one shard of single pictures, one byte each."""
    rows = [
        {"video": f"p{n:09d}", "subject": "", "frame": 1, "time_s": float("nan"), "image": b"\0"} for n in range(ROWS)
    ]
    write_shard(store, "s", rows)
    finish_store(store, made_by="benchmarks/billion.py", config={}, image_size=112, problems=[])
    return store


def build(store: Path, template: Path, shards: int) -> None:
    """A finished store of equal shards."""
    (store / DATA).mkdir(parents=True)
    header = json.loads((template / HEADER).read_text())
    (entry,) = header["shards"]
    names = [f"s{number:07d}.parquet" for number in range(shards)]
    for number, name in enumerate(names):
        path = store / DATA / name
        if number % LINKS == 0:
            shutil.copy(template / DATA / entry["name"], path)
            first = path
        else:
            path.hardlink_to(first)
    header |= {"rows": ROWS * shards, "shards": [entry | {"name": name} for name in names]}
    write_sealed(store / HEADER, header)


def streamed(store: Path) -> dict[str, Any]:
    """Cost of opening a streamed store, and how well it is shuffled."""
    before, start, cpu = memory(), time.perf_counter(), time.process_time()
    faces = StreamedMixture([f"file://{store}"])
    opened, cpu = time.perf_counter() - start, time.process_time() - cpu
    gc.collect()
    found: dict[str, Any] = {
        "shards": len(faces.faces),
        "header_mib": (store / HEADER).stat().st_size / 2**20,
        "open_s": opened,
        "open_cpu_s": cpu,
        "memory_mib": memory() - before,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10 - before,
        "each_worker_mib": len(pickle.dumps(faces)) / 2**20,
    }
    plan = BatchPlan.derive(count=len(faces), batch_size=BATCH, most=LANES, rank=0, world=1, seed=0)
    crops = Numbers(faces, plan, 0, 1, crop=RandomCrop(112, (0.2, 1.0)), patches=1)
    for name, position in (("first", 0), ("last", len(faces) // LANES - BATCH // LANES)):
        start = time.perf_counter()
        next(crops._samples(0, LANES, position))
        found[f"{name}_sample_s"] = time.perf_counter() - start
    together = streaming.TOGETHER
    for streaming.TOGETHER in (1, together):
        samples = [crops._samples(lane, LANES, 0) for lane in range(LANES)]
        numbers = np.array([next(lane)["number"] for lane in samples for _ in range(BATCH // LANES)])
        counts = np.bincount(numbers // ROWS)
        shuffled = {"shards_in_a_batch": int((counts > 0).sum()), "most_from_one": int(counts.max())}
        found[f"shuffling_{streaming.TOGETHER}_together"] = shuffled
    shards = len(faces.faces)
    found["shards_in_a_perfectly_shuffled_batch"] = shards * (1 - (1 - 1 / shards) ** BATCH)
    return found


def local(store: Path) -> dict[str, Any]:
    """Memory and time of the same store as a local one, by row."""
    before, start = memory(), time.perf_counter()
    faces = FacesMixture([store])
    order = epoch_order(0, 0, len(faces))
    opened = time.perf_counter() - start
    return {"faces": len(order), "open_s": opened, "bytes_per_face": (memory() - before) * 2**20 / len(faces)}


def memory() -> float:
    """Memory of this process in MiB."""
    return psutil.Process().memory_info().rss / 2**20


def checkpoint_rate(folder: Path) -> float:
    """MB per second at which weights reach the disk."""
    weights = {"weights": torch.zeros(64 << 20)}
    start = time.perf_counter()
    save_file(weights, folder / "weights.safetensors")
    with (folder / "weights.safetensors").open("rb+") as file:
        os.fsync(file.fileno())
    return (256 << 20) / 1e6 / (time.perf_counter() - start)


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))
