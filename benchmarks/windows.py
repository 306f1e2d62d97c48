"""Compares two ways to read features and make window batches: a cache in memory, and one file per frame and window.

    python benchmarks/windows.py --out benchmarks/results/windows.json

The second way is how code in this field does it (ling2024's and its descendants'): a `.npy` per frame, stacked into
windows that are saved as `.npz`, overlapping ones twice. All files are in the page cache, so that no disk is measured;
sides take turns in every round, and the medians of the rounds are recorded. Two sizes: the paper's, where copying out
of memory takes all the time, and the demo's.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from checkpoints.artifact import write_json
from checkpoints.errors import guarded
from features.cache import FeatureCache, finish_cache, write_features
from temporal.data import build_table
from temporal.windows import Windows
from wildaffect.tasks import TASKS
from wildaffect.tasks.labels import LabelTrack


@dataclass
class Config:
    """Measure reading features and making window batches."""

    out: Path | None = None
    """Where to record the table as JSON."""
    videos: int = 16
    """Number of sequences."""
    frames: int = 1500
    """Frames per sequence."""
    batch: int = 32
    """Windows per batch."""
    rounds: int = 7
    """Rounds for both sides."""


@dataclass(frozen=True)
class Size:
    """Width of a feature, frames of a window and between windows."""

    dim: int
    window: int
    stride: int


SIZES = {"ling2024": Size(768, 300, 200), "demo": Size(160, 64, 32)}


def main(config: Config) -> dict[str, object]:
    """Measure both sizes."""
    torch.set_num_threads(1)
    result: dict[str, object] = {"videos": config.videos, "frames": config.frames, "batch": config.batch}
    for name, size in SIZES.items():
        result[name] = {**asdict(size), **measure(config, size)}
        print(name, result[name])
    if config.out is not None:
        write_json(config.out, result)
    return result


def measure(config: Config, size: Size) -> dict[str, float]:
    """Write both forms to a temporary folder and measure them."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        ids = [f"v{number}" for number in range(config.videos)]
        tracks = {}
        for id in ids:
            features = rng.normal(size=(config.frames, size.dim)).astype(np.float16)
            valid, time_s = np.ones(config.frames, bool), np.arange(config.frames) / 30
            write_features(root / "cache", id, features=features, valid=valid, time_s=time_s, first_frame=1)
            labels = rng.uniform(-1, 1, (config.frames, 2)).astype(np.float32)
            tracks[id] = LabelTrack(labels, np.ones_like(labels, bool), root)
            _write_the_other_way(root, id, features.astype(np.float32), labels, size)
        finish_cache(root / "cache", made_by="benchmark", config={}, parents={}, feature_id="x", dim=size.dim)
        cache = FeatureCache(root / "cache")
        table = build_table([cache], {"va": tracks}, [TASKS["va"]])
        windows = Windows.cover(table.spans, size.window, size.stride)
        files = sorted((root / "windows").iterdir())
        order = rng.integers(0, len(windows), (20, config.batch))

        def our_frames() -> int:
            return sum(len(cache.read(id)) for id in ids)

        def their_frames() -> int:
            frames = [np.load(root / "frames" / id / f"{n:05d}.npy") for id in ids for n in range(1, config.frames + 1)]
            return len(np.stack(frames))

        def our_windows() -> int:
            for chosen in order:
                rows, _ = windows[chosen].rows()
                batch = torch.from_numpy(rows)
                table.inputs(batch)
                table.targets("va", batch)
            return order.size

        def their_windows() -> int:
            for chosen in order:
                loaded = [np.load(files[number % len(files)]) for number in chosen]  # it drops the tails: fewer
                torch.from_numpy(np.stack([item["features"] for item in loaded]))
                torch.from_numpy(np.stack([item["labels"] for item in loaded]))
            return order.size

        ours, theirs = _rates(our_frames, their_frames, config.rounds)
        windows_ours, windows_theirs = _rates(our_windows, their_windows, config.rounds)
    return {
        "read_frames_per_s": round(ours),
        "read_frames_per_s_npy_per_frame": round(theirs),
        "read_ratio": round(ours / theirs, 1),
        "windows_per_s": round(windows_ours),
        "windows_per_s_npz_per_window": round(windows_theirs),
        "windows_ratio": round(windows_ours / windows_theirs, 1),
    }


def _write_the_other_way(root: Path, id: str, features: np.ndarray, labels: np.ndarray, size: Size) -> None:
    (root / "frames" / id).mkdir(parents=True)
    (root / "windows").mkdir(exist_ok=True)
    for number, frame in enumerate(features, 1):
        np.save(root / "frames" / id / f"{number:05d}.npy", frame)
    for start in range(0, len(features) - size.window + 1, size.stride):
        part = slice(start, start + size.window)
        np.savez(root / "windows" / f"{id}_{start:05d}.npz", features=features[part], labels=labels[part])


def _rates(ours: Callable[[], int], theirs: Callable[[], int], rounds: int) -> tuple[float, float]:
    """Median rates of both sides, measured alternately after one warm-up."""
    sides = (ours, theirs)
    rates: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for side, kept in zip(sides, rates, strict=True):
            start = time.perf_counter()
            count = side()
            if number:
                kept.append(count / (time.perf_counter() - start))
    return float(np.median(rates[0])), float(np.median(rates[1]))


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))
