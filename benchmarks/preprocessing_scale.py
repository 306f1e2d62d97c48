"""Does the cost of preprocessing per frame, in time and memory, stay the same for long videos?

    python benchmarks/preprocessing_scale.py --clip VIDEO --out benchmarks/results/preprocessing_scale.json

The clip is repeated to each length (packets are copied, not re-encoded) and preprocessed in its own process. Processor
time, which other work on the machine hardly affects, and the peak memory of the process are measured.
"""

from __future__ import annotations

import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import av
import cv2
import torch
import tyro

from checkpoints.artifact import write_json
from checkpoints.errors import guarded
from preprocessing.mtcnn import MTCNN
from preprocessing.shard import Settings, make_shard
from preprocessing.sources import find_items, make_groups


@dataclass
class Config:
    """Measure processor time and memory of preprocessing by the length of a video."""

    clip: Path
    """A short video with a face."""
    frames: list[int] = field(default_factory=lambda: [1000, 2000, 5000, 10000, 20000])
    """Lengths to measure."""
    out: Path | None = None
    """Where to record the table as JSON."""


def repeat(clip: Path, frames: int, out: Path) -> None:
    """Repeat a video's packets until it has a given number of frames."""
    with av.open(str(clip)) as source, av.open(str(out), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        packets = [packet for packet in source.demux(stream) if packet.size]
        times = [(packet.pts or 0, packet.dts or 0) for packet in packets]
        length = max(pts for pts, _ in times) + (packets[0].duration or 1) - min(pts for pts, _ in times)
        for number in range(frames):
            round_, index = divmod(number, len(packets))
            packet = av.Packet(bytes(packets[index]))
            packet.pts, packet.dts = (value + round_ * length for value in times[index])
            packet.duration, packet.is_keyframe = packets[index].duration, packets[index].is_keyframe
            packet.time_base, packet.stream = packets[index].time_base, copy
            target.mux(packet)


def measure(clip: Path, warm_up: Path) -> tuple[int, int, float, float]:
    """Preprocess one video in this process: frames, faces, processor seconds and peak memory in MiB."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    detector = MTCNN()
    with tempfile.TemporaryDirectory() as folder:
        log = {}
        for name, path in (("warm", warm_up), ("measured", clip)):
            (group,) = make_groups(find_items([path], crops=False)[0])
            started = time.process_time()
            log = make_shard(Path(folder) / name, group, Settings(), detector)
            seconds = time.process_time() - started
    return log["frames"], log["faces"], seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure every length and print the table."""
    config = tyro.cli(Config, description=__doc__)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        short = Path(folder) / f"short{config.clip.suffix}"
        repeat(config.clip, 500, short)
        for frames in config.frames:
            clip = Path(folder) / f"long{config.clip.suffix}"
            repeat(config.clip, frames, clip)
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                decoded, faces, seconds, memory = pool.submit(measure, clip, short).result()
            row = {"frames": decoded, "faces": faces, "ms_per_frame": 1000 * seconds / decoded, "memory_mib": memory}
            rows.append(row)
            print(f"{decoded:6} frames  {row['ms_per_frame']:.2f} ms a frame  {memory:.0f} MiB", flush=True)
    times = [row["ms_per_frame"] for row in rows]
    print(f"time per frame varies by {max(times) / min(times) - 1:.1%}, memory by {_spread(rows):.0f} MiB")
    if config.out:
        write_json(config.out, {"clip": config.clip.name, "threads": 1, "lengths": rows})


def _spread(rows: list[dict[str, float]]) -> float:
    return max(row["memory_mib"] for row in rows) - min(row["memory_mib"] for row in rows)


if __name__ == "__main__":
    guarded(main)
