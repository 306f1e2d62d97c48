"""Compares stage 1's loader with the original's PIL pipeline in pictures per second and core.

    python benchmarks/loader.py --out benchmarks/results/loader.json

Both start from the same 256-pixel JPEGs in memory and end with a batch of 224-pixel crops. The pictures are SynthWild
people drawn at that size, with sensor noise, because flat drawings would decode faster than photographs. Our loader
returns bytes, which the device normalises; the original returns normalised floats (RandomResizedCrop bicubic, flip,
ToTensor, Normalize). Both sides are measured with bilinear interpolation too (`ours_fast`, `original_bilinear`). All
use one thread and alternate by batch.
"""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from PIL import Image
from torchvision import transforms

from checkpoints.artifact import write_json
from checkpoints.errors import guarded
from synthwild.face import draw_face
from synthwild.people import Action, Pose, random_identity
from wildaffect.tasks import AUS
from wildaffect.training.images import CropDataset, RandomCrop, decode
from wildaffect.training.rundir import read_metrics

SIZE, CROP, SCALE = 256, 224, (0.2, 1.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass
class Config:
    """Measure loaders."""

    out: Path | None = None
    """Where to record the result as JSON."""
    runs: tuple[Path, ...] = ()
    """Runs of stage 1 whose share of time spent waiting for data is also recorded."""
    pictures: int = 64
    """Number of different pictures, which is the batch size."""
    rounds: int = 30
    """Measured rounds, after two for warming up."""


def main(config: Config) -> dict[str, Any]:
    """Measure and record."""
    torch.set_num_threads(1)
    jpegs = [face(seed) for seed in range(config.pictures)]
    sides = {
        "ours": ours(jpegs, "mae"),
        "ours_fast": ours(jpegs, "fast"),
        "original": pil(jpegs, transforms.InterpolationMode.BICUBIC),
        "original_bilinear": pil(jpegs, transforms.InterpolationMode.BILINEAR),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(config.rounds + 2):
        for name, load in sides.items():
            start = time.process_time()
            load(number)
            if number >= 2:
                seconds[name].append(time.process_time() - start)
    rate = {name: config.pictures / float(np.median(times)) for name, times in seconds.items()}
    result: dict[str, Any] = {
        "what": f"pictures per second of CPU time, one thread; {SIZE} px JPEG to {CROP} px crops; median of turns",
        "pictures": "SynthWild people drawn at 256 px with noise of 4 grey levels, JPEG quality 95",
        "mean_jpeg_bytes": float(np.mean([len(jpeg) for jpeg in jpegs])),
        "rounds": config.rounds,
        "pictures_per_s": rate,
        "times_as_fast": {name: rate["ours"] / value for name, value in rate.items() if name != "ours"},
        "quartiles_of_turns": {
            name: np.quantile(np.array(seconds[name]) / np.array(seconds["ours"]), [0.25, 0.75]).tolist()
            for name in sides
            if name != "ours"
        },
    }
    if config.runs:
        result["data_wait"] = {run.name: data_wait(run) for run in config.runs}
    print(result)
    if config.out is not None:
        write_json(config.out, result)
    return result


def face(seed: int) -> bytes:
    """JPEG of one drawn person."""
    rng = np.random.default_rng(seed)
    canvas = np.full((SIZE, SIZE, 3), rng.integers(60, 200, 3), np.uint8)
    action = Action({name: float(rng.random()) for name in AUS})
    draw_face(canvas, random_identity(rng), action, Pose(SIZE / 2, SIZE / 2, 0.3 * SIZE))
    noisy = np.clip(canvas + rng.normal(0, 4, canvas.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(noisy[..., ::-1])).save(buffer, "jpeg", quality=95)  # OpenCV draws in BGR
    return buffer.getvalue()


def ours(jpegs: list[bytes], style: Literal["mae", "fast"]) -> Callable[[int], torch.Tensor]:
    """Stage 1's crops of bytes in memory."""
    crop = RandomCrop(CROP, SCALE, style)
    dataset = CropDataset(count=len(jpegs), picture=lambda index: decode(jpegs[index]), name=str, crop=crop, seed=0)
    return lambda epoch: dataset.__getitems__([(epoch, index) for index in range(len(jpegs))])["images"]


def pil(jpegs: list[bytes], interpolation: transforms.InterpolationMode) -> Callable[[int], torch.Tensor]:
    """The pipeline of facebookresearch/mae's pretraining script, on bytes in memory."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(CROP, scale=SCALE, interpolation=interpolation),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )

    def load(_epoch: int) -> torch.Tensor:
        return torch.stack([transform(Image.open(io.BytesIO(jpeg)).convert("RGB")) for jpeg in jpegs])

    return load


def data_wait(run: Path) -> dict[str, float]:
    """Share of a run's time spent waiting for data, and its rate: medians over its records after the first."""
    records = [record for record in read_metrics(run) if "data_wait" in record][1:]
    return {
        "share": float(np.median([record["data_wait"] for record in records])),
        "pictures_per_s": float(np.median([record["images_per_s"] for record in records])),
        "records": len(records),
    }


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))
