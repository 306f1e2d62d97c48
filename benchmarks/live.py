"""How fast is a running video predicted, and how late is a row?

    python -m benchmarks.live --clip VIDEO --out benchmarks/results/live.json

The video is scaled to each height and streamed twice by the starter weights: as fast as it goes (frames per second, and
the time of a frame on the wall and on the processor), and paced as a camera would, where frames that come too soon are
dropped (how old a frame is when its row is there). The file keeps heights measured earlier.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import tyro

from checkpoints.artifact import read_json, write_json
from checkpoints.errors import guarded
from preprocessing.video import read_frames
from wildaffect.inference.live import newest
from wildaffect.inference.predictor import Predictor


@dataclass
class Config:
    """Measure `Predictor.stream` on a video."""

    clip: Path
    """A video with a face."""
    heights: tuple[int, ...] = (360, 720)
    """Heights in pixels to which its frames are scaled."""
    frames: int = 120
    """Frames to predict, from the first on."""
    fps: float = 25.0
    """Frames per second of the camera that is played."""
    out: Path | None = None
    """Where to record the results as JSON."""


def measure(predictor: Predictor, pictures: list[np.ndarray], fps: float) -> dict[str, Any]:
    """Stream the pictures as fast as possible, and as a camera would take them."""
    wall, work = [], []
    rows = predictor.stream(pictures, fps=fps)
    next(rows)  # loads what is loaded once
    last, used, faces = time.perf_counter(), time.process_time(), 0
    for row in rows:
        faces += row["face"]
        wall.append(time.perf_counter() - last)
        work.append(time.process_time() - used)
        last, used = time.perf_counter(), time.process_time()

    taken: dict[int, float] = {}

    def camera() -> Iterator[np.ndarray]:
        for number, picture in enumerate(pictures):
            time.sleep(max(0.0, start + number / fps - time.perf_counter()))
            taken[id(picture)] = time.perf_counter()
            yield picture

    def shown() -> Iterator[np.ndarray]:
        for picture in newest(camera()):
            came.append(taken[id(picture)])
            yield picture

    came: list[float] = []
    start = time.perf_counter()
    late = [time.perf_counter() - came[-1] for _ in predictor.stream(shown())]
    return {
        "frames": len(pictures),
        "with_a_face": round(faces / len(wall), 3),
        "frames_per_s": round(len(wall) / sum(wall), 1),
        "wall_ms": spread(wall),
        "processor_ms": spread(work),
        "camera": {"fps": fps, "frames": len(late), "delay_ms": spread(late)},
    }


def spread(seconds: list[float]) -> dict[str, float]:
    """Median, 95th percentile and maximum in milliseconds."""
    values = np.percentile(np.array(seconds) * 1000, [50, 95, 100])
    return {name: round(float(value), 1) for name, value in zip(("median", "p95", "most"), values, strict=True)}


def main() -> None:
    """Measure every height and print the results."""
    config = tyro.cli(Config, description=__doc__)
    known = read_json(config.out)["heights"] if config.out and config.out.exists() else {}
    predictor = Predictor()
    for height in config.heights:
        pictures = []
        for frame in read_frames(config.clip, print):
            if frame.image is not None:
                width = round(frame.image.shape[1] * height / frame.image.shape[0])
                pictures.append(cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_AREA))
            if len(pictures) == config.frames:
                break
        load = os.getloadavg()[0]
        known[str(height)] = {**measure(predictor, pictures, config.fps), "load_before": round(load, 1)}
        print(height, known[str(height)], flush=True)
        if config.out:
            facts = {
                "clip": config.clip.name,
                "cores": len(os.sched_getaffinity(0)),
                "threads": torch.get_num_threads(),
            }
            write_json(config.out, facts | {"heights": known})


if __name__ == "__main__":
    guarded(main)
