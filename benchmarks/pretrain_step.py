"""Compares a training step of stage 1 (forward, backward, AdamW) with transformers' ViTMAEForPreTraining.

    python benchmarks/pretrain_step.py --out benchmarks/results/pretrain_step.json

ViT-B/16 at 224 px, 75 % masked, random pictures, all sides in one process taking turns. `transformers` and
`ours_8x512_fp32` do the same arithmetic (tests/pretrain/test_mae.py compares them number by number); the others show
what the light decoder and bf16 give, alone and together (`fast`, what recipe `vit-base` does). Where the CPU has no
bf16 instructions, training takes fp32, and so does `fast`. All sides use the same
AdamW; ours also turns bytes into floats and normalises them, which transformers' model leaves to its caller. A product
of two square matrices, in the arithmetic of `fast`, takes its turn too: it shows what the machine can do at all.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from checkpoints.artifact import write_json
from checkpoints.errors import guarded
from pretrain.build import build
from pretrain.recipes import RECIPES
from wildaffect.training.launch import choose_precision
from wildaffect.training.meter import count_flops

PARTS = ("forward", "backward", "optimizer")
SIDE = 2048
"""Rows and columns of the matrices of the product."""
OURS = {  # recipe of the decoder, bf16 where there is any
    "ours_8x512_fp32": ("ling2024", False),
    "ours_8x512_bf16": ("ling2024", True),
    "ours_4x384_fp32": ("vit-base", False),
    "fast": ("vit-base", True),
}


@dataclass
class Config:
    """Measure training steps."""

    out: Path | None = None
    """Where to record the result as JSON."""
    batch: int = 16
    """Pictures per step."""
    rounds: int = 8
    """Measured rounds, after one for warming up."""
    threads: int = 2
    """CPU threads."""


def main(config: Config) -> dict[str, Any]:
    """Measure and record."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(0)
    native = choose_precision("auto", torch.device("cpu"))[0] == "bf16"
    sides = {"transformers": theirs(config.batch)} | {
        name: ours(recipe, config.batch, bf16 and native)
        for name, (recipe, bf16) in OURS.items()
        if native or not bf16 or name == "fast"
    }
    seconds: dict[str, list[list[float]]] = {name: [] for name in sides}
    products, product = [], matrix_product(torch.bfloat16 if native else torch.float32)
    for number in range(config.rounds + 1):
        for name, step in sides.items():
            parts = step()
            if number:
                seconds[name].append(parts)
            print(f"round {number} {name:16} {sum(parts):6.2f} s", flush=True)
        products.append(product())
    rate = 2 * SIDE**3 / min(products)
    totals = {name: np.sum(measured, axis=1) for name, measured in seconds.items()}
    fastest = {name: seconds[name][int(total.argmin())] for name, total in totals.items()}
    result: dict[str, Any] = {
        "what": "seconds per training step, ViT-B/16 at 224 px, by side; the fastest turn is the least disturbed",
        "batch": config.batch,
        "threads": config.threads,
        "bf16": native,
        "rounds": config.rounds,
        "torch": torch.__version__,
        "seconds_fastest": {name: float(sum(parts)) for name, parts in fastest.items()},
        "seconds_median": {name: float(np.median(total)) for name, total in totals.items()},
        "images_per_s": {name: config.batch / float(sum(parts)) for name, parts in fastest.items()},
        "matrix_flop_per_s": rate,
        "share_of_matrix_rate": {
            name: 3 * flops_of(recipe) * config.batch / float(sum(fastest[name])) / rate
            for name, (recipe, bf16) in OURS.items()
            if name in fastest and (bf16 or not native)
        },
        "parts_of_fastest": {name: dict(zip(PARTS, parts, strict=True)) for name, parts in fastest.items()},
        "times_as_fast_as_transformers": {
            name: ratio(totals["transformers"], total) for name, total in totals.items() if name != "transformers"
        },
    }
    for name, found in result["times_as_fast_as_transformers"].items():
        print(f"{name}: {found}")
    print(f"share of {rate / 1e9:.0f} GFLOP/s: {result['share_of_matrix_rate']}")
    if config.out is not None:
        write_json(config.out, result)
    return result


def ratio(theirs: np.ndarray, ours: np.ndarray) -> dict[str, float]:
    """How many times as fast: fastest turns, medians, and quartiles of the ratio within a turn."""
    low, middle, high = np.quantile(theirs / ours, [0.25, 0.5, 0.75]).tolist()
    return {
        "fastest": float(theirs.min() / ours.min()),
        "medians": float(np.median(theirs) / np.median(ours)),
        "within_turn": middle,
        "within_turn_quartiles_from": low,
        "within_turn_quartiles_to": high,
    }


def theirs(batch: int) -> Callable[[], list[float]]:
    """The reference, with the attention it chooses itself."""
    model = ViTMAEForPreTraining(ViTMAEConfig())
    return stepper(model, torch.randn(batch, 3, 224, 224), lambda x, noise: model(x, noise=noise).loss, False)


def ours(recipe: str, batch: int, bf16: bool) -> Callable[[], list[float]]:
    """The network of a recipe."""
    model = build(RECIPES[recipe][1])
    images = torch.randint(0, 256, (batch, 3, 224, 224), dtype=torch.uint8)
    return stepper(model, images, lambda x, noise: model(x, noise).loss, bf16)


def flops_of(recipe: str) -> float:
    """Floating-point operations of a forward pass of one picture; a training step is three."""
    model = build(RECIPES[recipe][1])
    picture = torch.zeros(1, 3, 224, 224, dtype=torch.uint8)
    return count_flops(model, picture, torch.zeros(1, model.num_patches))


def matrix_product(dtype: torch.dtype) -> Callable[[], float]:
    """A function that multiplies two square matrices and returns the seconds that it took."""
    one, two = torch.rand(2, SIDE, SIDE).to(dtype)

    def product() -> float:
        start = time.perf_counter()
        _ = one @ two
        return time.perf_counter() - start

    return product


def stepper(
    model: nn.Module, images: torch.Tensor, loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], bf16: bool
) -> Callable[[], list[float]]:
    """A function that does one step and returns the seconds that its parts took."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    model.train()

    def step() -> list[float]:
        noise = torch.rand(len(images), 196)
        moments = [time.perf_counter()]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = loss_of(images, noise)
        moments.append(time.perf_counter())
        loss.backward()
        moments.append(time.perf_counter())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        moments.append(time.perf_counter())
        return np.diff(moments).tolist()

    return step


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))
