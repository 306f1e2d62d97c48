"""What stage 1 costs by number of pictures, picture size and number of processes, with the demo's network.

    python benchmarks/pretrain_cost.py --faces data/pool_faces --out benchmarks/results/pretrain_cost.json \
        --figure docs/images/pretrain_cost.png

Every point is a run of `pretrain/run.py demo` in its own process with one thread. The first record of a run is left
out, because it includes the start-up. Smaller stores are made from the first shards of the given one.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from checkpoints.artifact import write_json
from checkpoints.errors import UserError, guarded
from preprocessing.faces import DATA, FacesStore
from preprocessing.write_faces import finish_store
from wildaffect.report.figures import canvas
from wildaffect.report.palette import GREY, MARK, PLAIN

SHARES = (0.05, 0.2, 0.5, 1.0)
SIZES = (32, 64, 96, 128)
PROCESSES = (1, 2)
BATCH, RECORDS = 128, 4


@dataclass
class Config:
    """Measure what stage 1 costs."""

    faces: Path
    """Faces store."""
    out: Path | None = None
    """Where to record the result as JSON."""
    figure: Path | None = None
    """Where to draw the figure, as PNG or SVG."""
    steps: int = 24
    """Optimizer steps per run; fewer for larger pictures."""


def main(config: Config) -> dict[str, Any]:
    """Measure and record."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        stores = {share: part_of(config.faces, share, place / f"store_{share}") for share in SHARES}
        result: dict[str, Any] = {
            "what": "the demo's network (160 wide, 5 blocks; decoder 96 x 2), patches of 8, batch 128, one thread each",
            "pictures": [measure(config, stores[share], place / f"count_{share}") for share in SHARES],
            "size": [measure(config, config.faces, place / f"size_{size}", size=size) for size in SIZES],
            "processes": [measure(config, config.faces, place / f"proc_{n}", processes=n) for n in PROCESSES],
        }
    if config.out is not None:
        write_json(config.out, result)
    if config.figure is not None:
        draw(result, config.figure)
    return result


def part_of(store: Path, share: float, place: Path) -> Path:
    """A store of the first shards of another, with a given share of its pictures."""
    shards = sorted((store / DATA).glob("*.parquet"))
    (place / DATA).mkdir(parents=True)
    for shard in shards[: max(1, round(share * len(shards)))]:
        (place / DATA / shard.name).symlink_to(shard.resolve())
    size = FacesStore(store).image_size
    finish_store(place, made_by="benchmarks/pretrain_cost.py", config={}, image_size=size, problems=[])
    return place


def measure(config: Config, store: Path, run: Path, *, size: int = 64, processes: int = 1) -> dict[str, Any]:
    """Run stage 1 for some steps and return rate, start-up time and memory."""
    steps = max(RECORDS, round(config.steps * min(1.0, (64 / size) ** 2) / RECORDS) * RECORDS)
    script = str(Path(__file__).parents[1] / "pretrain" / "run.py")
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)] if processes > 1 else []
    settings = {"image-size": size, "steps": steps, "log-every": steps // RECORDS, "batch-size": BATCH}
    command = [sys.executable, *launcher, script, "demo", "--faces", str(store), "--out", str(run)]
    command += [f"--{name}={value}" for name, value in settings.items()]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    started = time.perf_counter()
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if ended.returncode:
        raise UserError(f"{' '.join(command)} failed: {ended.stderr[-400:]}")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rate = float(np.median([record["images_per_s"] for record in records[1:]]))
    found = {
        "pictures_in_store": int(FacesStore(store).valid.sum()),
        "image_size": size,
        "patches": (size // 8) ** 2,
        "processes": processes,
        "pictures_per_s": rate,
        "ms_per_picture": 1000 / rate,
        "data_wait": float(np.median([record["data_wait"] for record in records[1:]])),
        "seconds_besides_steps": seconds - sum(steps / RECORDS * BATCH / record["images_per_s"] for record in records),
    }
    print(found, flush=True)
    return found


def draw(result: dict[str, Any], path: Path) -> None:
    """Three panels of milliseconds per picture and of the rate."""
    figure, axes = canvas(1, 3, height=2.9)
    count, size, processes = axes[0]

    def column(part: str, name: str) -> np.ndarray:
        return np.array([point[name] for point in result[part]], float)

    thousands = column("pictures", "pictures_in_store") / 1000
    count.plot(thousands, column("pictures", "ms_per_picture"), "o-", color=PLAIN)
    count.plot(thousands, column("pictures", "seconds_besides_steps"), "s--", color=MARK)
    count.annotate("ms per picture", (0.03, 0.06), xycoords="axes fraction", color=PLAIN, fontsize=9)
    count.annotate("s besides steps (start, report)", (0.03, 0.16), xycoords="axes fraction", color=MARK, fontsize=9)
    count.set(xlabel="thousand pictures in the store", ylim=(0, None), xlim=(0, None), title="number of pictures")
    size.plot(column("size", "patches"), column("size", "ms_per_picture"), "o-", color=PLAIN)
    for point in result["size"]:
        size.annotate(
            f"{point['image_size']} px",
            (point["patches"], point["ms_per_picture"]),
            (4, -11),
            textcoords="offset points",
            fontsize=8,
        )
    size.set(xlabel="patches", ylabel="ms per picture", ylim=(0, None), xlim=(0, None), title="size of pictures")
    rate = column("processes", "pictures_per_s")
    processes.bar([str(n) for n in PROCESSES], rate, color=PLAIN, width=0.5)
    processes.plot(range(len(PROCESSES)), rate[0] * np.array(PROCESSES), "_", color=GREY, ms=34, mew=2)
    processes.annotate("grey: n times one", (0.03, 0.93), xycoords="axes fraction", color=GREY, fontsize=8)
    processes.set(xlabel="processes (gloo, one thread each)", ylabel="pictures per s", title="processes")
    for axis in axes[0]:
        axis.title.set_fontsize(10)
        axis.grid(alpha=0.25)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))
