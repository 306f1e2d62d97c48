"""Kills at random moments: the product equals that of an uninterrupted run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np

from benchmarks.hostile.line import Line, commands
from benchmarks.hostile.outcome import Tally, run_command, script, start_child, wait_for

TIMED = {"metrics.jsonl", "report.html", "annotated.mp4"}
"""Files that hold times of day or of work."""


def product(out: Path) -> dict[str, bytes]:
    """All files of a product by name, without those that hold times and those that are for one process."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name not in TIMED]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def kill(line: Line, work: Path, names: list[str], rng: np.random.Generator, each: int) -> Tally:
    """Kill each command `each` times at random moments, and start it again until it is done."""
    tally = Tally()
    for name in names:
        whole = work / "whole" / name / "out"
        end = run_command(commands(line, whole)[name])
        if end.status:
            tally.add(f"{name} uninterrupted", f"status {end.status}", end.output)
            continue
        expected = product(whole)
        place = work / "killed" / name / "out"
        for number in range(each):
            how = signal.Signals(int(rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])))
            child, output = start_child(script(commands(line, place)[name]))
            _after(child, float(rng.uniform(0, end.seconds)))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, how)
            ended = wait_for(child, output, 120.0)
            traced = "Traceback" in ended.output and how != signal.SIGKILL
            tally.add(f"{name} kill {number}", how.name, f"{how.name}: {ended.output}" if traced else "")
            if ended.status:
                continue
            _compare(tally, name, expected, place)
        for _ in range(2):  # the second finds it finished
            again = run_command(commands(line, place)[name])
        if name not in ("export", "convert"):
            tally.add(f"{name} in the end", f"status {again.status}", again.fault if again.status else "")
        _compare(tally, name, expected, place)
    return tally


def _after(child: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.01)


def _compare(tally: Tally, name: str, expected: dict[str, bytes], place: Path) -> None:
    found = product(place)
    different = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
    tally.add(f"{name} product", "compared", f"different: {different}" if different else "")
    shutil.rmtree(place, ignore_errors=True)
