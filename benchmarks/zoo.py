"""Measures the encoders that ship and those that recipes name: weights, and milliseconds per face on one core.

    python -m benchmarks.zoo --out benchmarks/results/zoo.json

Those that do not ship have random weights, which take the same time. A round is one batch of aligned faces, from pixels
to features, in the precision that `wildaffect predict` would choose; the fastest round counts, because other work can
only slow one down.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro

from checkpoints.artifact import write_json
from checkpoints.encoder import load_encoder
from checkpoints.errors import guarded
from checkpoints.network import Encoder
from pretrain.build import build
from pretrain.recipes import RECIPES
from wildaffect.training.launch import choose_precision


def untrained(recipe: str) -> Encoder:
    """The encoder of a recipe of stage 1."""
    return build(RECIPES[recipe][1]).encoder


CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
ENCODERS: dict[str, Callable[[], Encoder]] = {
    "starter": partial(load_encoder, CHECKPOINTS / "starter" / "encoders" / "0"),
    "demo": partial(load_encoder, CHECKPOINTS / "demo"),
    **{name: partial(untrained, name) for name in ("small", "vit-base", "vit-large")},
}


@dataclass(frozen=True)
class Config:
    """Measure every encoder."""

    batch: int = 2
    """Faces in a batch."""
    rounds: int = 4
    """Batches that are timed."""
    out: Path | None = None
    """Where to record the results as JSON."""


@torch.inference_mode()
def measure(encoder: Encoder, config: Config, bf16: bool) -> dict[str, Any]:
    """Count the weights of an encoder and time it."""
    encoder.eval()
    size = encoder.config.image_size
    faces = torch.randint(0, 256, (config.batch, 3, size, size), dtype=torch.uint8)
    seconds = []
    for _ in range(config.rounds + 1):  # the first one allocates
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            encoder(faces)
        seconds.append(time.process_time() - start)
    return {
        "weights": sum(weight.numel() for weight in encoder.parameters()),
        "pixels": size,
        "ms_per_face": round(min(seconds[1:]) / config.batch * 1000, 2),
    }


def main(config: Config) -> dict[str, Any]:
    """Measure and record."""
    torch.set_num_threads(1)
    precision, _ = choose_precision("auto", torch.device("cpu"))
    result: dict[str, Any] = {"precision": precision, "batch": config.batch, "encoders": {}}
    for name, make in ENCODERS.items():
        result["encoders"][name] = measure(make(), config, precision == "bf16")
        print(name, result["encoders"][name], flush=True)
    if config.out is not None:
        write_json(config.out, result)
    return result


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))
