"""Measures feature extraction: throughput relative to the bare encoder, and memory and time by video length.

    python benchmarks/extract.py --out benchmarks/results/extract.json

Throughput: ViT-B/16 with random weights at 224 px on faces of 112 px. The job (decoding, enlarging and batching the
pictures, writing the features) alternates with the encoder alone on a prepared batch of the same size and precision.
The job's rate comes from the extra time for three times as many pictures, which leaves out fixed costs of some seconds:
starting processes, opening the store, and the report. Memory and time: the demo's encoder on one video of each length,
in a fresh process, over several rounds. The time is the minimum over the rounds, because other work can only slow a job
down; the memory is the median. Memory is what the process and its workers allocate (without the mapped store) beyond
what they held at the start, sampled twice a second.
"""

import io
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image

from checkpoints.artifact import read_json, write_json
from checkpoints.encoder import load_encoder, save_encoder
from checkpoints.errors import guarded
from checkpoints.network import Encoder, EncoderConfig
from features.run import Extract
from features.run import main as extract
from preprocessing.faces import FacesStore
from preprocessing.write_faces import finish_store, write_shard
from wildaffect.training.launch import choose_precision


@dataclass
class Config:
    """Measure the feature job."""

    out: Path | None = None
    """Where to record the table as JSON."""
    batch: int = 32
    """Pictures per forward pass of ViT-B."""
    batches: int = 4
    """Pictures per round; a long job takes three times as many."""
    rounds: int = 2
    """Rounds for both sides; 0: do not measure throughput."""
    lengths: tuple[int, ...] = (1_000, 10_000, 50_000)
    """Lengths of the videos in frames; none: do not measure cost."""
    turns: int = 3
    """Rounds per length."""
    threads: int = 1
    """Threads of the encoder."""
    workers: int = 1
    """Decoding processes."""


def main(config: Config) -> dict[str, Any]:
    """Measure what is asked for, and keep what an earlier call recorded of the rest."""
    result: dict[str, Any] = read_json(config.out) if config.out is not None and config.out.exists() else {}
    result |= {"threads": config.threads, "workers": config.workers}
    with tempfile.TemporaryDirectory() as folder:
        if config.rounds:
            result["throughput"] = in_fresh_process(throughput, config, Path(folder))
            print(result["throughput"], flush=True)
        if config.lengths:
            turns = [
                [in_fresh_process(cost, config, Path(folder) / f"turn{turn}", length) for length in config.lengths]
                for turn in range(config.turns)
            ]
            result["lengths"] = [summed_up(list(found)) for found in zip(*turns, strict=True)]
            for what in ("seconds", "cpu_seconds"):
                result[f"{what}_per_1000_more"] = marginal(result["lengths"], what)
            print({key: value for key, value in result.items() if key.endswith("_more")}, flush=True)
    if config.out is not None:
        write_json(config.out, result)
    return result


def in_fresh_process(function: Any, *arguments: Any) -> Any:
    """Call a function of this file in a process of its own.

    A spawned process would also spawn its loaders; the command forks them, so this one is told to do the same.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), set_start_method, ("fork", True)) as pool:
        return pool.submit(function, *arguments).result()


def summed_up(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """All rounds of one length: minimum of the seconds, median of the memory."""
    found: dict[str, Any] = {"frames": turns[0]["frames"]}
    found |= {what: min(turn[what] for turn in turns) for what in ("seconds", "cpu_seconds")}
    memory = [turn["memory_growth_mib"] for turn in turns]
    return found | {"memory_growth_mib": float(np.median(memory)), "memory_growth_mib_by_turn": memory}


def marginal(lengths: list[dict[str, Any]], what: str) -> list[float]:
    """Cost of a thousand more frames, from two lengths: leaves out the fixed cost of a job."""
    return [round(1000 * (b[what] - a[what]) / (b["frames"] - a["frames"]), 3) for a, b in pairwise(lengths)]


def make_store(path: Path, frames: int) -> Path:
    """One video of noisy pictures the size of faces."""
    rng = np.random.default_rng(0)
    jpegs = []
    for _ in range(64):
        small = Image.fromarray(rng.integers(0, 255, (14, 14, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize((112, 112), Image.Resampling.BICUBIC).save(buffer, "jpeg", quality=95)
        jpegs.append(buffer.getvalue())
    rows = (
        {"video": "v", "subject": "", "frame": n + 1, "time_s": n / 30, "image": jpegs[n % 64]} for n in range(frames)
    )
    write_shard(path, "v", rows)
    finish_store(path, made_by="benchmarks/extract.py", config={}, image_size=112, problems=[])
    return path


def make_encoder(path: Path, architecture: str, size: int, **kwargs: Any) -> Path:
    """An encoder with random weights."""
    encoder = Encoder(EncoderConfig(architecture, size, kwargs))
    save_encoder(path, encoder, made_by="benchmarks/extract.py", recipe={}, parents={})
    return path


def throughput(config: Config, folder: Path) -> dict[str, Any]:
    """Pictures per second of the job and of the encoder alone, medians over rounds, and their ratio by round."""
    torch.set_num_threads(config.threads)
    frames = config.batch * config.batches
    stores = [make_store(folder / f"faces{times}", times * frames) for times in (1, 3)]
    where = make_encoder(folder / "encoder", "vit_base_patch16_224", 224, global_pool="token")
    for faces in stores:
        FacesStore(faces).jpeg(0)  # maps the store
    encoder = load_encoder(where)
    images = torch.randint(0, 255, (config.batch, 3, 224, 224), dtype=torch.uint8)
    bf16 = choose_precision("auto")[0] == "bf16"

    def bare() -> tuple[float, float]:
        start, processor = time.perf_counter(), time.process_time()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            for _ in range(config.batches):
                encoder(images)
        return frames / (time.perf_counter() - start), (time.process_time() - processor) / frames

    def job(number: int) -> tuple[float, float]:
        seconds, processor = [], []
        for times, faces in enumerate(stores):
            out = folder / f"cache{number}_{times}"
            settings = Extract(
                encoder=str(where), faces=faces, out=out, batch_size=config.batch, workers=config.workers
            )
            start, before = time.perf_counter(), time.process_time()
            extract(settings)
            seconds.append(time.perf_counter() - start)
            processor.append(time.process_time() - before)
        more = 2 * frames
        return more / (seconds[1] - seconds[0]), (processor[1] - processor[0]) / more

    bare()
    rounds = np.array([(bare(), job(number)) for number in range(config.rounds)])  # [R, side, (rate, CPU seconds)]
    (alone, cpu_alone), (whole, cpu_whole) = np.median(rounds, axis=0)
    return {
        "precision": "bf16" if bf16 else "fp32",
        "batch": config.batch,
        "encoder_per_s": round(float(alone), 2),
        "job_per_s": round(float(whole), 2),
        "share": round(float(np.median(rounds[:, 1, 0] / rounds[:, 0, 0])), 3),
        "share_by_round": (rounds[:, 1, 0] / rounds[:, 0, 0]).round(3).tolist(),
        "encoder_cpu_seconds_per_picture": round(float(cpu_alone), 4),
        "job_cpu_seconds_per_picture": round(float(cpu_whole), 4),
    }


def cost(config: Config, folder: Path, frames: int) -> dict[str, Any]:
    """Seconds of a whole job (of the clock, and of the main process's processor), and growth of memory."""
    torch.set_num_threads(config.threads)
    faces = make_store(folder / f"faces{frames}", frames)
    short = make_store(folder / f"short{frames}", 300)
    size = {"patch_size": 8, "embed_dim": 160, "depth": 5, "num_heads": 5, "global_pool": "token"}
    where = make_encoder(folder / f"demo{frames}", "vit_tiny_patch16_224", 64, **size)
    settings = Extract(encoder=str(where), faces=short, out=folder / f"warm{frames}", workers=config.workers)
    extract(settings)
    FacesStore(faces).jpeg(0)
    with Watch() as watch:
        start, processor = time.perf_counter(), time.process_time()
        extract(Extract(**{**vars(settings), "faces": faces, "out": folder / f"cache{frames}"}))
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
    result = {
        "frames": frames,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(processor, 2),
        "memory_growth_mib": round(watch.growth / 2**20, 1),
    }
    print(result, flush=True)
    return result


class Watch:
    """Peak anonymous memory of this process and its children, minus what it was at the start."""

    def __enter__(self) -> "Watch":
        self._first = self._most = held()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            self._most = max(self._most, held())

    @property
    def growth(self) -> int:
        """Growth in bytes."""
        return self._most - self._first


def held() -> int:
    """Bytes of anonymous memory of this process, plus what its workers do not share with it."""
    total = _field("/proc/self/smaps_rollup", "Anonymous")
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            try:
                total += _field(f"/proc/{child}/smaps_rollup", "Private_Dirty")
            except OSError:
                continue  # it ended in the meantime
    return total


def _field(path: str, name: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config)))
