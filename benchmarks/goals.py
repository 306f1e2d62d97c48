"""Runs the benchmarks that have a goal, two rounds, and prints one table against the goals: `make bench VIDEOS=FOLDER`.

    python -m benchmarks.goals --videos FOLDER --out benchmarks/results/goals.json

Without `--videos` (a folder with the clips of `benchmarks/detection.py`) what needs real faces is left out. A goal is
met if both rounds meet it. On a machine that is busy with other work only ratios of one run mean anything.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from checkpoints.artifact import read_json, write_json
from checkpoints.errors import UserError, guarded

ROOT = Path(__file__).parents[1]
CLIP = "woman2.mp4"


@dataclass(frozen=True)
class Goal:
    """One figure of one benchmark, and what it should be.

    Attributes:
        work: What is measured.
        script: Module in `benchmarks`.
        value: The figure in the benchmark's result.
        goal: What it should reach.
        arguments: Of the benchmark; `{videos}` stands for the folder of clips.
        least: The goal is a least value, not a largest one.
    """

    work: str
    script: str
    value: Callable[[dict[str, Any]], float]
    goal: float
    arguments: tuple[str, ...] = field(default=())
    least: bool = True

    @property
    def as_text(self) -> str:
        """The goal with its direction."""
        return f"{'>=' if self.least else '<='} {self.goal:g}"

    def met(self, value: float) -> bool:
        """Whether a value reaches the goal."""
        return value >= self.goal if self.least else value <= self.goal


STEPS = ("--rounds", "3", "--batch", "8")
GOALS = (
    Goal(
        "stage-1 step, times as fast as transformers' ViTMAE",
        "pretrain_step",
        lambda result: result["images_per_s"]["fast"] / result["images_per_s"]["transformers"],
        6,
        STEPS,
    ),
    Goal(
        "... or share of the rate of a matrix product",
        "pretrain_step",
        lambda result: result["share_of_matrix_rate"]["fast"],
        0.4,
        STEPS,
    ),
    Goal(
        "the same arithmetic in fp32",
        "pretrain_step",
        lambda result: result["images_per_s"]["ours_8x512_fp32"] / result["images_per_s"]["transformers"],
        1.2,
        STEPS,
    ),
    Goal("loader, times as fast as PIL", "loader", lambda result: result["times_as_fast"]["original"], 3.5),
    Goal(
        "head on Aff-Wild2's size, minutes an epoch",
        "head_cost",
        lambda result: result["epoch_minutes_extrapolated"],
        35,
        ("real-size", "--steps", "20", "--threads", "2"),
        least=False,
    ),
    Goal(
        "audit of a tenth of Aff-Wild2's frames, seconds",
        "audit",
        lambda result: result["seconds"],
        2,
        ("--share", "0.1"),
        least=False,
    ),
    Goal(
        "detection, times as fast as MTCNN on each frame",
        "detection",
        lambda result: result["all"]["seconds_reference"] / result["all"]["seconds"],
        12,
        ("--videos", "{videos}"),
    ),
    Goal(
        "detection, % of confident faces found",
        "detection",
        lambda result: 100 * result["all"]["found"] / result["all"]["faces"],
        99.5,
        ("--videos", "{videos}"),
    ),
    Goal(
        "clip of a minute to everything, share of its length",
        "predict_clip",
        lambda result: result["lengths"]["1 min"]["real_time_factor"],
        0.2,
        ("--clip", f"{{videos}}/{CLIP}", "--heads", str(ROOT / "checkpoints" / "starter"), "--minutes", "1"),
        least=False,
    ),
)


@dataclass
class Config:
    """Run the benchmarks that have a goal."""

    videos: Path | None = None
    """Folder of the clips of `benchmarks/detection.py`."""
    rounds: int = 2
    """How often each benchmark runs."""
    out: Path | None = None
    """Where to record the table as JSON."""


def main(config: Config) -> None:
    """Run, print and record."""
    goals = [goal for goal in GOALS if config.videos or "{videos}" not in "".join(goal.arguments)]
    values: dict[str, list[float]] = {goal.work: [] for goal in goals}
    for number in range(1, config.rounds + 1):
        print(f"round {number} of {config.rounds}", flush=True)
        results: dict[tuple[str, ...], dict[str, Any]] = {}
        for goal in goals:
            words = command(goal, config.videos)
            if words not in results:
                results[words] = measured(*words)
            values[goal.work].append(goal.value(results[words]))
            print(f"{goal.work}: {values[goal.work][-1]:.3g} ({goal.as_text})", flush=True)
    print(as_table(goals, values))
    if config.out is not None:
        rows = [
            {"work": g.work, "goal": g.as_text, "values": values[g.work], "met": all(map(g.met, values[g.work]))}
            for g in goals
        ]
        write_json(config.out, {"what": "benchmarks against their goals, one value a round", "rows": rows})


def command(goal: Goal, videos: Path | None) -> tuple[str, ...]:
    """Module and arguments of a goal's benchmark."""
    return goal.script, *(argument.replace("{videos}", str(videos)) for argument in goal.arguments)


def measured(script: str, *arguments: str) -> dict[str, Any]:
    """Run a benchmark in a process of its own, and read its result.

    Raises:
        UserError: It fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        words = [sys.executable, "-m", f"benchmarks.{script}", *arguments, "--out", str(out)]
        done = subprocess.run(
            words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            raise UserError(f"benchmarks/{script}.py failed: {(done.stderr.splitlines() or ['no message'])[-1]}")
        return read_json(out)


def as_table(goals: list[Goal], values: dict[str, list[float]]) -> str:
    """The table of figures, goals and whether they are met."""
    lines = ["| work | measured | goal | met |", "|---|---|---|---|"]
    for goal in goals:
        found = values[goal.work]
        met = "yes" if all(map(goal.met, found)) else "no"
        lines.append(f"| {goal.work} | {', '.join(f'{value:.3g}' for value in found)} | {goal.as_text} | {met} |")
    return "\n".join(lines)


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))
