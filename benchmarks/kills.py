"""Kills a command at random moments, restarts it, and compares its result with that of an uninterrupted run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.errors import UserError


def kill_study(
    arguments: Callable[[Path], Sequence[str]],
    content: Callable[[Path], Mapping[str, Any]],
    *,
    kills: int,
    seed: int,
    state: Callable[[Path], Any],
    writing: str = "",
) -> dict[str, Any]:
    """Kill the process group of a command (`kill -9`) and restart the command, until there have been enough kills.

    Each result is killed and resumed until it is complete; then the next one is started.

    Args:
        arguments: Maps the result's folder to the command line after `python`.
        content: Maps a complete result to everything that must equal the uninterrupted run's, by name.
        kills: Number of kills.
        seed: Seed of the random moments.
        state: Maps an unfinished result to what is recorded after a kill, as JSON values.
        writing: Glob of files that exist only while something is being written. Every other kill then waits, from its
            random moment on, for such a file, so that it falls inside a write.

    Returns:
        `kills`: moment and state of each; `inside_a_write`: how many of them; `results`: number of complete results
        compared; `different`: names that differed in any of them; `seconds_uninterrupted`.

    Raises:
        UserError: The command fails by itself.
    """
    rng = np.random.default_rng(seed)
    moments: list[dict[str, Any]] = []
    results, different = 0, set[str]()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "whole" / "result"
        started = time.monotonic()
        if _start(arguments(place)).wait():
            raise UserError(f"`python {' '.join(arguments(place))}` fails by itself: run it to see why")
        whole, duration = dict(content(place)), time.monotonic() - started
        print(f"uninterrupted: {duration:.1f} s, {len(whole)} things to compare", flush=True)
        place = Path(folder) / "killed" / "result"
        while len(moments) < kills or place.exists():
            process = _start(arguments(place))
            if len(moments) < kills:
                inside = bool(writing) and len(moments) % 2 == 1
                killed_after = _kill(process, float(rng.uniform(0, duration)), place, writing if inside else "")
                if killed_after is not None:
                    moments.append({"seconds": round(killed_after, 2), "in_write": inside, "state": state(place)})
                    print(f"kill {len(moments)}: {moments[-1]}", flush=True)
                    continue
            if process.wait():
                raise UserError(f"after {len(moments)} kills the command no longer goes on: see it in {place}")
            results += 1
            mine = dict(content(place))
            differing = {name for name in mine.keys() | whole.keys() if mine.get(name) != whole.get(name)}
            different |= differing
            print(f"result {results} complete, {len(differing)} differences", flush=True)
            shutil.rmtree(place)
    return {
        "kills": moments,
        "inside_a_write": sum(moment["in_write"] for moment in moments),
        "results": results,
        "different": sorted(different),
        "seconds_uninterrupted": round(duration, 1),
    }


def _start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, *arguments], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _kill(process: subprocess.Popen[bytes], wait: float, place: Path, writing: str) -> float | None:
    """Kill a process group after a while, or inside the next write after that; None: it ended before."""
    started = time.monotonic()
    left = _inodes(place, writing)  # by the kill before
    try:
        process.wait(timeout=wait)
        return None
    except subprocess.TimeoutExpired:
        while writing and _inodes(place, writing) <= left:
            if process.poll() is not None:
                return None
            time.sleep(0.0005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return time.monotonic() - started


def _inodes(place: Path, writing: str) -> set[int]:
    """Files that are being written at the moment."""
    found = set()
    for path in place.glob(writing) if writing else ():
        with contextlib.suppress(FileNotFoundError):
            found.add(path.stat().st_ino)
    return found
