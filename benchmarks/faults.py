"""Tries to break every command and reader, and counts what falls short: `make faults`.

Damaged texts and tables, videos and pictures, damaged files of every artifact, full disks, odd places, nonsense
options, two runs in one directory, kills. Whatever happens must be a product, or a refusal of a few lines that names
the cause: no traceback, no wrong value, no half product. Ends with status 1 if anything fell short.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import tyro

# Imported before the first fork, so that no child has to.
import wildaffect.inference.clip
import wildaffect.inference.predictor  # noqa: F401
from benchmarks import faults_text
from benchmarks.hostile.artifacts import damage_artifacts
from benchmarks.hostile.kills import kill
from benchmarks.hostile.line import Line, make_line
from benchmarks.hostile.media import fuzz_media, mixed_folders
from benchmarks.hostile.mutate import in_memory
from benchmarks.hostile.options import nonsense
from benchmarks.hostile.outcome import Tally, in_child
from benchmarks.hostile.places import fill_disks, fill_real_disks, odd_places, pairs
from checkpoints.artifact import write_json
from checkpoints.errors import UserError, guarded

WRITERS = ["preprocessing", "pretrain", "finetune", "features", "temporal", "export", "convert", "predict", "synthwild"]
KILLED = ["preprocessing", "pretrain", "finetune", "features", "temporal", "predict"]
ALONE = {"damaged texts", "damaged media"}
"""Kinds that need no line."""
AT_ONCE = 2
MOST_LISTED = 40


@dataclass(frozen=True)
class Faults:
    """Try to break everything."""

    seed: int = 0
    """Of every random choice."""
    scale: float = 1.0
    """Fraction of the usual number of cases."""
    kinds: tuple[str, ...] = ()
    """Which kinds to try; none: all."""
    json: Path | None = None
    """Where to record the result."""


def kinds_of(config: Faults, line: Line, work: Path) -> dict[str, Callable[[np.random.Generator], Tally]]:
    """What is tried, by name; the slow ones first."""

    def count(number: int) -> int:
        return max(1, round(number * config.scale))

    return {
        "damaged texts": partial(damage_texts, count(50_000)),
        "kills": lambda rng: kill(line, work / "kills", KILLED, rng, count(10)),
        "nonsense options": lambda rng: nonsense(line, work, rng, count(150)),
        "full disks (small file system)": lambda rng: fill_real_disks(line, work, WRITERS, rng, count(3)),
        "full disks (largest file)": lambda rng: fill_disks(line, work, WRITERS[:-1], rng, count(3)),
        "odd places": lambda _: odd_places(line, work / "odd", WRITERS),
        "two runs in one directory": lambda _: pairs(line, work / "pairs", WRITERS[:-1]),
        "damaged files of artifacts": lambda rng: damage_artifacts(line, work, rng),
        "damaged media": lambda rng: fuzz_media(work / "media", rng, count(1500)),
        "folders with one good picture": lambda rng: mixed_folders(line, work / "mixed", rng, count(4)),
    }


def damage_texts(texts: int, rng: np.random.Generator) -> Tally:
    """Damaged label files, tables, lists and headers: see `benchmarks/faults_text.py`."""
    counted, faults = faults_text.run(texts, int(rng.integers(2**31)))
    tally = Tally()
    for ends in counted.values():
        tally.tried += sum(ends.values())
        tally.ended.update(ends)
    tally.short.update({f"text {number}": fault for number, fault in enumerate(faults)})
    return tally


def main(config: Faults) -> dict[str, Any]:
    """Try everything and print the table.

    Raises:
        UserError: There is no such kind, or the line that is damaged cannot be made.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wildaffect-faults-", dir=in_memory()) as folder:
        work = Path(folder)
        os.environ["XDG_CACHE_HOME"] = str(work / "cache")
        line = Line(work / "line")
        known = kinds_of(config, line, work)
        if unknown := set(config.kinds) - set(known):
            raise UserError(f"no kind {sorted(unknown)[0]!r}: choose from {', '.join(known)}")
        chosen = {name: known[name] for name in config.kinds or known}
        if chosen.keys() - ALONE:
            made = in_child(partial(make_line, line.root), seconds=3600)
            if made.status:
                raise UserError(f"the line cannot be made: {made.output}")
        tallies = _run(chosen, config.seed, work)
    result = {
        "seed": config.seed,
        "scale": config.scale,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "kinds": tallies,
    }
    print(f"\n{'tried':>7} {'fell short':>11}  kind (seed {config.seed})")
    for name, tally in tallies.items():
        print(f"{tally['tried']:7,} {tally['fell_short']:11,}  {name}: {tally['ended']}, {tally['processor_s']} s")
    if config.json is not None:
        write_json(config.json, result)
    if any(tally["fell_short"] for tally in tallies.values()):
        sys.exit(1)
    return result


def _run(chosen: dict[str, Callable[[np.random.Generator], Tally]], seed: int, work: Path) -> dict[str, dict[str, Any]]:
    """Run the kinds in processes of their own, `AT_ONCE` at a time."""
    waiting, running = list(enumerate(chosen)), list[Any]()
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            number, name = waiting.pop(0)
            task = (chosen[name], np.random.default_rng([seed, number]), work / f"result{number}.json")
            running.append(multiprocessing.get_context("fork").Process(target=_one, args=task))
            running[-1].start()
            print(f"{name} ...", flush=True)
        running[0].join(0.5)
        running = [process for process in running if process.is_alive()]
    return {
        name: json.loads(path.read_text())
        if (path := work / f"result{number}.json").exists()
        else {"tried": 0, "ended": {}, "fell_short": 1, "cases": {"all": "its process ended"}, "processor_s": 0}
        for number, name in enumerate(chosen)
    }


def _one(kind: Callable[[np.random.Generator], Tally], rng: np.random.Generator, out: Path) -> None:
    tally = kind(rng)
    short = dict(list(tally.short.items())[:MOST_LISTED])
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    facts = {"tried": tally.tried, "ended": dict(tally.ended), "fell_short": len(tally.short), "cases": short}
    facts["processor_s"] = round(sum(part.ru_utime + part.ru_stime for part in used))
    out.write_text(json.dumps(facts))


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Faults, description=__doc__)))
