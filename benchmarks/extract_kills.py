"""Kill feature extraction at random moments, half of them inside the write of a file, and compare the finished cache.

    python benchmarks/extract_kills.py --faces STORE --out benchmarks/results/extract_kills.json

Every file of the cache, its header included, must equal that of an uninterrupted run byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from benchmarks.kills import kill_study
from checkpoints.artifact import write_json
from checkpoints.errors import guarded

ROOT = Path(__file__).parents[1]
BATCH = 48


@dataclass
class Config:
    """Kill and resume extraction at random moments."""

    faces: Path
    """Faces store."""
    encoder: Path = ROOT / "checkpoints" / "demo"
    """Encoder."""
    kills: int = 20
    """Number of kills."""
    seed: int = 0
    """Seed of the random moments."""
    out: Path | None = None
    """Where to record the result as JSON."""


def arguments(config: Config, cache: Path) -> list[str]:
    """The command, with two views and batches that end inside videos."""
    paths = ["--encoder", str(config.encoder), "--faces", str(config.faces), "--out", str(cache)]
    return [str(ROOT / "finetune" / "extract.py"), *paths, "--view", "full", "eyes_mouth", "--batch-size", str(BATCH)]


def content(cache: Path) -> dict[str, Any]:
    """Bytes of all files except the reports."""
    files = [file for file in cache.rglob("*") if file.is_file() and file.suffix != ".html"]
    return {str(file.relative_to(cache)): file.read_bytes() for file in files}


def state(cache: Path) -> dict[str, int]:
    """Files that a kill left behind: complete ones, and those that were being written."""
    names = [file.name for file in cache.glob("*/*.safetensors*")]
    unfinished = sum(name.startswith(".") for name in names)
    return {"whole": len(names) - unfinished, "unfinished": unfinished}


def main() -> None:
    """Run the study."""
    config = tyro.cli(Config, description=__doc__)
    command = partial(arguments, config)
    result = kill_study(command, content, kills=config.kills, seed=config.seed, state=state, writing="*/.*.tmp")
    if config.out is not None:
        write_json(config.out, {"batch": BATCH, "views": ["full", "eyes_mouth"], **result})
    print(f"{len(result['kills'])} kills, {result['results']} results, differences: {result['different'] or 'none'}")


if __name__ == "__main__":
    guarded(main)
