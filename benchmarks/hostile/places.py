"""Commands in a bad place: full disks, read-only folders, loops of links, files instead of folders, two at once."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.hostile.line import Line, commands
from benchmarks.hostile.outcome import End, Tally, run_command, script, start_child, wait_for
from checkpoints.lock import LOCK

BESIDE = ("convert", "predict")
"""Commands that write their files beside others."""


def fill_disks(line: Line, work: Path, names: list[str], rng: np.random.Generator, each: int) -> Tally:
    """Run each command where no file may be larger than a random size, then again without that limit.

    What is left after the first must not stop the second, and a file beside the artifact must stay.
    """
    tally = Tally()
    for name in names:
        for number in range(each):
            out = work / f"{name}{number}"
            most = int(10 ** rng.uniform(0, 5.3))
            end = run_command(commands(line, out)[name], most_bytes=most)
            tally.add(f"{name} with files of at most {most} bytes", f"status {end.status}", end.fault)
            if end.status != 0:
                again = run_command(commands(line, out)[name])
                wrong = "" if again.status == 0 else f"not resumable: {again.output}"
                tally.add(f"{name} again after at most {most} bytes", f"status {again.status}", wrong)
            shutil.rmtree(out, ignore_errors=True)
    return tally


@contextlib.contextmanager
def small_disk(place: Path, megabytes: float) -> Iterator[Path | None]:
    """A file system in memory of a few megabytes; None where it cannot be mounted."""
    place.mkdir(parents=True, exist_ok=True)
    size = f"size={int(megabytes * 1024)}k"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(place)], check=False, capture_output=True)
    try:
        yield place if mounted.returncode == 0 else None
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(place)], check=False)


def fill_real_disks(line: Line, work: Path, names: list[str], rng: np.random.Generator, each: int) -> Tally:
    """The same on a small file system of its own, where temporary files and the hashes of files are too."""
    tally = Tally()
    for name in names:
        for _ in range(each):
            size = float(10 ** rng.uniform(-2.0, 0.5))
            with small_disk(work / "disk", size) as disk:
                if disk is None:
                    return tally
                end = run_command(commands(line, disk / "out")[name])
                tally.add(f"{name} on a disk of {size:.2f} MB", f"status {end.status}", end.fault)
    return tally


def odd_places(line: Line, work: Path, names: list[str]) -> Tally:
    """`--out` is a file, below a file, a loop of links, a dangling link, too long, not empty or not to be written."""
    tally = Tally()
    work.mkdir(parents=True, exist_ok=True)
    (work / "file").write_text("mine")
    (work / "loop").symlink_to(work / "loop")
    (work / "dangling").symlink_to(work / "nowhere" / "deep")
    (work / "full").mkdir()
    (work / "full" / "mine.txt").write_text("mine")
    places = {
        "a file": work / "file",
        "below a file": work / "file" / "deeper",
        "a loop of links": work / "loop",
        "below a loop": work / "loop" / "deeper",
        "a dangling link": work / "dangling",
        "a name of 300 letters": work / ("x" * 300),
        "a folder of somebody's": work / "full",
        "a place of the system": Path("/proc/self/nothing"),
    }
    for name in names:
        for what, place in places.items():
            end = run_command(commands(line, place)[name])
            may = what == "a dangling link" or (name in BESIDE and what == "a folder of somebody's")
            fault = end.fault or ("" if end.status == 2 or may else f"status {end.status}")
            tally.add(f"{name}: --out is {what}", f"status {end.status}", fault)
            if (work / "file").read_text() != "mine" or not (work / "full" / "mine.txt").exists():
                tally.add(f"{name}: --out is {what}: what was there", "gone", "a file of somebody's was destroyed")
    return tally


def pairs(line: Line, work: Path, names: list[str]) -> Tally:
    """Start a command twice in one directory: the second is refused by name, and the first one's product is whole."""
    tally = Tally()
    for name in names:
        out = work / f"pair_{name}"
        arguments = commands(line, out)[name]
        first = start_child(script(arguments))
        while not list(out.rglob(LOCK)) and _alive(first[0]):
            time.sleep(0.01)
        second = run_command(arguments)
        refused = second.status == 2 and "is being written by" in second.output
        ended = wait_for(*first, 300.0)
        late = second.status == 0 or "not empty" in second.output or "already holds" in second.output
        if not refused and late and not second.fault:  # it came after the first had ended
            tally.add(f"{name}: the second", "too late")
        else:
            fault = "" if refused else f"not refused by name: status {second.status}: {second.output}"
            tally.add(f"{name}: the second", f"status {second.status}", fault)
        tally.add(f"{name}: the first", f"status {ended.status}", ended.fault or _not_done(ended))
        again = run_command(arguments)
        if name not in ("export", "convert"):  # these refuse to write over a product
            tally.add(f"{name}: once more", f"status {again.status}", again.fault or _not_done(again))
        shutil.rmtree(out, ignore_errors=True)
    return tally


def _not_done(end: End) -> str:
    return "" if end.status == 0 else f"status {end.status}: {end.output}"


def _alive(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
