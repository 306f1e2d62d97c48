"""What does `wildaffect predict` cost, stage by stage, and does its memory grow with the length of a clip?

    python benchmarks/predict_clip.py --clip VIDEO --heads RUN... --out benchmarks/results/predict_clip.json

The clip is repeated to each length (packets are copied, not re-encoded) and predicted in its own process. Memory is the
private memory of the process (RssAnon in /proc), sampled while it works; pages of mapped files can be dropped at any
time and are counted separately. The file keeps lengths measured earlier, so the study can be run in pieces.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import tyro

from benchmarks.preprocessing_scale import repeat
from checkpoints.artifact import read_json, write_json
from checkpoints.errors import guarded
from wildaffect.inference.clip import predict_clip
from wildaffect.inference.clips import list_clips
from wildaffect.inference.predictor import Predictor

EVERY = 0.25
"""Seconds between two samples."""


@dataclass
class Config:
    """Measure time and memory of each stage of `wildaffect predict` by the length of a clip."""

    clip: Path
    """A short video with a face."""
    heads: tuple[Path, ...]
    """Heads to predict with."""
    minutes: tuple[float, ...] = (1, 5, 20)
    """Lengths to measure."""
    out: Path | None = None
    """Where to record the table as JSON."""


class Memory:
    """Samples what this process holds, in a thread."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float, float]] = []
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.samples.append((time.perf_counter(), *held()))
            time.sleep(EVERY)

    def peak(self, start: float, end: float) -> tuple[float, float]:
        """Largest private and mapped memory in MiB between two times."""
        inside = [sample[1:] for sample in self.samples if start - EVERY <= sample[0] <= end + EVERY]
        return max(private for private, _ in inside), max(mapped for _, mapped in inside)


def held() -> tuple[float, float]:
    """Private memory and mapped files of this process in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    return int(found["RssAnon"]) / 1024, (int(found["RssFile"]) + int(found["RssShmem"])) / 1024


def measure(clip: Path, warm_up: Path, heads: tuple[Path, ...]) -> dict[str, Any]:
    """Predict one clip in this process, after a short one that loads everything."""
    predictor = Predictor(heads, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        (item,), _ = list_clips([warm_up])
        predict_clip(predictor, item, Path(folder) / "warm")
        memory, before = Memory(), held()[0]
        (item,), _ = list_clips([clip])
        started = time.perf_counter()
        outcome = predict_clip(predictor, item, Path(folder) / "measured")
        rows = read_json(Path(folder) / "measured" / "predictions.json")["facts"]
        table = (Path(folder) / "measured" / "predictions.csv").stat().st_size / 2**20
    bounds = [started + offset for offset in accumulate(outcome.seconds.values(), initial=0.0)]
    stages = {}
    for number, (name, seconds) in enumerate(outcome.seconds.items()):
        private, mapped = memory.peak(bounds[number], bounds[number + 1])
        stages[name] = {
            "seconds": round(seconds, 2),
            "real_time_factor": round(seconds / rows["seconds"], 4),
            "private_mib": round(private),
            "mapped_mib": round(mapped),
        }
    total = sum(outcome.seconds.values())
    return {
        "frames": rows["frames"],
        "clip_seconds": round(rows["seconds"], 2),
        "real_time_factor": round(total / rows["seconds"], 4),
        "private_mib_before": round(before),
        "csv_mib": round(table, 1),
        "stages": stages,
    }


def main() -> None:
    """Measure every length and print the table."""
    config = tyro.cli(Config, description=__doc__)
    known = read_json(config.out)["lengths"] if config.out and config.out.exists() else {}
    heads = tuple(path.absolute() for path in config.heads)
    with tempfile.TemporaryDirectory() as folder:
        short = Path(folder) / f"short{config.clip.suffix}"
        repeat(config.clip, 300, short)
        for minutes in config.minutes:
            clip = Path(folder) / f"long{config.clip.suffix}"
            repeat(config.clip, round(minutes * 60 * rate_of(config.clip)), clip)
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                row = pool.submit(measure, clip, short, heads).result()
            known[f"{minutes:g} min"] = row
            print(f"{minutes:g} min: {row['frames']} frames, {row['real_time_factor']:.3f} x real time", flush=True)
            for name, stage in row["stages"].items():
                print(f"  {name:18} {stage['seconds']:8.1f} s  {stage['private_mib']:5} + {stage['mapped_mib']} MiB")
            if config.out:
                cores = len(os.sched_getaffinity(0))
                lengths = dict(sorted(known.items(), key=lambda item: item[1]["frames"]))
                write_json(config.out, {"clip": config.clip.name, "cores": cores, "lengths": lengths})


def rate_of(clip: Path) -> float:
    """Frames per second of a video."""
    with av.open(str(clip)) as container:
        return float(container.streams.video[0].average_rate or 30)


if __name__ == "__main__":
    guarded(main)
