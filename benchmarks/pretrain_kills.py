"""Kill stage 1 at random moments, half of them inside the write of a state, and compare the weights it ends with.

    python benchmarks/pretrain_kills.py --faces STORE --out benchmarks/results/pretrain_kills.json

Weights of encoder and decoder must be equal bit for bit, and so must the loss and gradient norm of every step.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from benchmarks.kills import kill_study
from checkpoints.artifact import write_json
from checkpoints.errors import guarded

RECIPE = {"steps": 60, "batch-size": 32, "save-every": 4, "log-every": 1}


@dataclass
class Config:
    """Kill and resume stage 1 at random moments."""

    faces: Path
    """Faces store."""
    kills: int = 20
    """Number of kills."""
    seed: int = 0
    """Seed of the random moments."""
    out: Path | None = None
    """Where to record the result as JSON."""


def arguments(faces: Path, run: Path) -> list[str]:
    """The command of a short run of the demo's recipe."""
    script = Path(__file__).parents[1] / "pretrain" / "run.py"
    settings = [f"--{name}={value}" for name, value in RECIPE.items()]
    return [str(script), "demo", "--faces", str(faces), "--out", str(run), *settings]


def content(run: Path) -> dict[str, Any]:
    """Weights, and the exactly reproducible part of the records."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    exact: dict[str, Any] = {f"step {r['step']}": (r["loss"], r["grad_norm"]) for r in records if "loss" in r}
    return exact | {file.name: file.read_bytes() for file in (run / "encoder").glob("*.safetensors")}


def state(run: Path) -> dict[str, Any]:
    """States that a kill left behind, and what was being written."""
    names = sorted(path.name for path in run.glob("state/*"))
    return {"whole": [n for n in names if n.startswith("step")], "unfinished": [n for n in names if n.startswith(".")]}


def main() -> None:
    """Run the study."""
    config = tyro.cli(Config, description=__doc__)
    command = partial(arguments, config.faces)
    result = kill_study(
        command, content, kills=config.kills, seed=config.seed, state=state, writing="state/.step_*.tmp"
    )
    result = {"recipe": RECIPE, **result}
    if config.out is not None:
        write_json(config.out, result)
    print(f"{len(result['kills'])} kills, {result['results']} results, differences: {result['different'] or 'none'}")


if __name__ == "__main__":
    guarded(main)
