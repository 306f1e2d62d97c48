"""What a head costs: time per frame by video length, memory for a long video, an epoch at the size of Aff-Wild2.

    python benchmarks/head_cost.py scaling --out benchmarks/results/head_scaling.json
    python benchmarks/head_cost.py real-size --out benchmarks/results/head_real_size.json
    python benchmarks/head_cost.py fusions --out benchmarks/results/head_fusions.json

Features are random numbers: only time and memory are measured.
"""

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro

from checkpoints.artifact import write_json
from checkpoints.errors import guarded
from temporal.data import FrameTable
from temporal.heads import Head, HeadInput
from temporal.network import HeadNetwork
from temporal.predict import predict_sequence
from temporal.recipes import Temporal, architecture_of, recipe
from temporal.train import batches
from temporal.windows import Windows
from wildaffect.tasks import TASKS, Task
from wildaffect.training.batches import BatchPlan
from wildaffect.training.schedule import weight_groups


@dataclass
class Config:
    """Measure time and memory of temporal heads on random features."""

    what: Annotated[Literal["scaling", "real-size", "fusions"], tyro.conf.Positional]
    """scaling: per frame, 1,000 to 100,000 frames; real-size: 200 steps on 3 million x 768; fusions: of two views."""
    out: Path | None = None
    """Where to record the result as JSON."""
    recipe: str = "ling2024"
    """Recipe of the real-size head."""
    frames: int = 3_000_000
    """Number of frames for `real-size`."""
    steps: int = 200
    """Training steps for `real-size`."""
    threads: int = 1
    """CPU threads."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device that the real-size head is trained on; features move there if they fit."""


def main(config: Config) -> dict[str, Any]:
    """Measure and record."""
    torch.set_num_threads(config.threads)
    studies: dict[str, Callable[[], dict[str, Any]]] = {
        "scaling": scaling,
        "real-size": partial(real_size, config),
        "fusions": fusions,
    }
    result = studies[config.what]()
    for key, value in result.items():
        print(f"{key}: {value}")
    if config.out is not None:
        write_json(config.out, result)
    return result


def scaling(lengths: Sequence[int] = (1_000, 10_000, 100_000), dim: int = 160, rounds: int = 5) -> dict[str, Any]:
    """Microseconds per frame of prediction and training with the demo's head, and what 50,000 frames add to memory."""
    settings = replace(recipe("demo", "va"), features=(), labels=Path(), out=Path())
    head = make_head(settings, (dim,))
    growth = memory_of_a_long_video(settings)  # first: the peak of a process only rises
    rng = np.random.default_rng(0)
    features = {n: rng.normal(size=(n, dim)).astype(np.float16) for n in lengths}
    predict: dict[int, list[float]] = {n: [] for n in lengths}
    train: dict[int, list[float]] = {n: [] for n in lengths}
    predict_sequence(head, features[lengths[0]], np.ones(lengths[0], bool))
    for _ in range(rounds):  # in turns, so that whatever else the machine does meets all lengths
        for n in lengths:
            # The same number of frames at each length, or a short one would be nothing but start-up.
            repeats = max(1, 20_000 // n)
            start = time.perf_counter()
            for _ in range(repeats):
                predict_sequence(head, features[n], np.ones(n, bool))
            predict[n].append((time.perf_counter() - start) / (n * repeats) * 1e6)
            table = make_table(TASKS["va"], [n], dim)
            step, _ = train_steps(settings, head, table, 20)
            train[n].append(step / (settings.batch_size * settings.window) * 1e6)
    return {
        "predict_us_per_frame": {str(n): round(float(np.median(times)), 2) for n, times in predict.items()},
        "train_us_per_frame": {str(n): round(float(np.median(times)), 2) for n, times in train.items()},
        "peak_growth_mib_50000_frames_768d": growth,
    }


def memory_of_a_long_video(settings: Temporal, frames: int = 50_000, dim: int = 768) -> float:
    """MiB by which predicting a long video raises the process's peak memory, with its features already loaded."""
    head = make_head(settings, (dim,))
    long, valid = np.zeros((frames, dim), np.float16), np.ones(frames, bool)
    long += 1  # really there
    predict_sequence(head, long[:1000], valid[:1000])
    floor = peak_mib()
    predict_sequence(head, long, valid)
    return round(peak_mib() - floor, 1)


def fusions(frames: int = 1024, dim: int = 768, rounds: int = 7) -> dict[str, Any]:
    """Milliseconds per frame of nguyen2024's heads on two views, forward only and with the backward pass."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(frames // 64, 64, 2 * dim, generator=generator)
    valid, inside = (
        torch.ones(*features.shape[:2], 2, dtype=torch.bool),
        torch.ones(features.shape[:2], dtype=torch.bool),
    )
    result: dict[str, Any] = {"frames": frames, "dims": [dim, dim], "threads": torch.get_num_threads()}
    for name in ("nguyen2024", "nguyen2024-concat", "nguyen2024-mean"):
        settings = replace(recipe(name, "va"), features=(), labels=Path(), out=Path())
        network = make_head(settings, (dim, dim)).network
        forward, both = [], []
        for _ in range(rounds):
            start = time.perf_counter()
            with torch.inference_mode():
                network(features, valid, inside)
            forward.append(time.perf_counter() - start)
            start = time.perf_counter()
            network(features, valid, inside).square().mean().backward()
            both.append(time.perf_counter() - start)
        weights = sum(parameter.numel() for parameter in network.parameters())
        times = {"forward": np.median(forward), "forward_and_backward": np.median(both)}
        result[name] = {key: round(float(value) / frames * 1e3, 4) for key, value in times.items()} | {
            "weights": weights
        }
    return result


def real_size(config: Config) -> dict[str, Any]:
    """Steps of a recipe on as many features as Aff-Wild2 has frames."""
    settings = replace(recipe(config.recipe, "va"), features=(), labels=Path(), out=Path())
    lengths = [5000] * (config.frames // 5000)
    start_mib = peak_mib()
    table = make_table(TASKS["va"], lengths, 768).to(config.device)
    filled_mib = peak_mib()
    head = make_head(settings, (768,))
    head.network.to(config.device)
    bf16 = torch.device(config.device).type == "cuda" or bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    step, gather = train_steps(settings, head, table, config.steps, config.device, bf16)
    windows = len(Windows.cover(table.spans, settings.window, settings.stride))
    frames_per_s = settings.batch_size * settings.window / step
    result = {
        "recipe": config.recipe,
        "device": torch.cuda.get_device_name() if config.device == "cuda" else f"cpu, {config.threads} thread(s)",
        "precision": "bf16" if bf16 else "fp32",
        "frames": sum(lengths),
        "steps": config.steps,
        "seconds_per_step_median": round(step, 2),
        "frames_per_s": round(frames_per_s),
        "epoch_minutes_extrapolated": round(windows * settings.window / frames_per_s / 60, 1),
        "gather_share": round(gather / step, 4),
        "table_mib": round(table.features.nbytes / 2**20),
        "process_peak_mib": {"start": round(start_mib), "table": round(filled_mib), "trained": round(peak_mib())},
    }
    if config.device == "cuda":
        result["cuda_peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return result


def make_head(settings: Temporal, dims: tuple[int, ...]) -> Head:
    """An untrained VA head."""
    torch.manual_seed(0)
    network = HeadNetwork(architecture_of(settings), dims, 2).eval()
    inputs = tuple(HeadInput(str(number), dim) for number, dim in enumerate(dims))
    return Head(network, (TASKS["va"],), architecture_of(settings), inputs, settings.recipe)


def make_table(task: Task, lengths: Sequence[int], dim: int) -> FrameTable:
    """Random features and labels, made in pieces so that only the table itself takes memory."""
    total = sum(lengths)
    generator = torch.Generator().manual_seed(0)
    features = torch.empty(total, dim, dtype=torch.float16)
    for start in range(0, total, 100_000):
        part = features[start : start + 100_000]
        part.copy_(torch.randn(part.shape, generator=generator))
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    return FrameTable(
        ids=[f"v{number}" for number in range(len(lengths))],
        spans=list(zip(starts, lengths, strict=True)),
        features=features,
        valid=torch.ones(total, 1, dtype=torch.bool),
        labels={task.name: torch.rand(total, task.label_width, generator=generator)},
        mask={task.name: torch.ones(total, task.label_width, dtype=torch.bool)},
        rates=[30.0] * len(lengths),
    )


def train_steps(
    settings: Temporal, head: Head, table: FrameTable, steps: int, device: str = "cpu", bf16: bool = False
) -> tuple[float, float]:
    """Median seconds of a training step and of gathering its batch (the median ignores pauses)."""
    windows = Windows.cover(table.spans, settings.window, settings.stride)
    plan = BatchPlan(len(windows), settings.batch_size, settings.batch_size, 1, 0, 1, 0)
    network, task = head.network, head.tasks[0]
    optimizer = torch.optim.AdamW(weight_groups(network, settings.weight_decay), lr=settings.lr)
    network.train()
    gathering, taken, last = [], [], _now(device)
    for number, batch in enumerate(batches(windows, plan, 0, settings)):
        start = _now(device)
        rows = batch["rows"].to(device)
        inputs, (labels, mask) = table.inputs(rows), table.targets(task.name, rows)
        gathering.append(_now(device) - start)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            outputs = network(*inputs, batch["inside"].to(device))
        loss = task.loss(outputs.float(), labels, mask)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        last, before = _now(device), last
        taken.append(last - before)
        if number == steps + 1:  # two steps to warm up
            break
    network.eval()
    return float(np.median(taken[2:])), float(np.median(gathering[2:]))


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))
