"""Kill preprocessing at random moments, start it again, and compare the store with an uninterrupted one.

    python benchmarks/preprocessing_kills.py --source DIR --out benchmarks/results/preprocessing_kills.json

One store is killed (`kill -9` of the whole process group) and resumed again and again until it is complete, then the
next one is begun, until there were as many kills as asked for. Every completed store must equal the uninterrupted one
byte for byte, and a shard that was finished before a kill must not have been written again.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from checkpoints.artifact import write_json
from checkpoints.errors import UserError, guarded


@dataclass
class Config:
    """Kill and resume preprocessing at random moments."""

    source: Path
    """What to preprocess; a SynthWild corpus' release, for example."""
    kills: int = 20
    """Number of kills."""
    workers: int = 1
    """Processes of each run."""
    seed: int = 0
    """Decides the moments."""
    out: Path | None = None
    """Where to record the result as JSON."""


def command(config: Config, store: Path) -> subprocess.Popen[bytes]:
    """Start preprocessing in a process group of its own."""
    arguments = ["--source", str(config.source), "--out", str(store), "--workers", str(config.workers)]
    script = Path(__file__).parents[1] / "preprocessing" / "run.py"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, str(script), *arguments], start_new_session=True, **quiet)  # type: ignore[call-overload]


def content(store: Path) -> dict[str, bytes]:
    """All finished files of a store."""
    files = sorted(path for path in store.rglob("*") if path.is_file() and not path.name.endswith(".tmp"))
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in files}


def finished(store: Path) -> dict[str, int]:
    """When each finished shard was written."""
    shards = {path.stem for path in (store / "log").glob("*.json")}
    return {p.name: p.stat().st_mtime_ns for p in (store / "data").glob("*.parquet") if p.stem in shards}


def main() -> None:
    """Run the study."""
    config = tyro.cli(Config, description=__doc__)
    rng = np.random.default_rng(config.seed)
    moments: list[dict[str, float]] = []
    stores = different = redone = leftovers = 0
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "whole" / "store"
        started = time.monotonic()
        if command(config, store).wait():
            raise UserError(f"preprocessing {config.source} failed: run it by itself to see why")
        whole, duration = content(store), time.monotonic() - started
        print(f"uninterrupted: {duration:.1f} s, {len(whole)} files", flush=True)
        store = Path(folder) / "killed" / "store"
        while len(moments) < config.kills or store.exists():
            before = finished(store)
            process = command(config, store)
            wait = float(rng.uniform(0, duration)) if len(moments) < config.kills else 1e6
            try:
                process.wait(timeout=wait)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                moments.append({"seconds": round(wait, 2), "finished_shards": len(finished(store))})
                print(f"kill {len(moments)} after {wait:.1f} s: {moments[-1]['finished_shards']} shards", flush=True)
                redone += sum(finished(store).get(name) != when for name, when in before.items())
                continue
            redone += sum(finished(store).get(name) != when for name, when in before.items())
            stores += 1
            different += content(store) != whole
            leftovers += len(list(store.rglob("*.tmp")))
            print(f"store {stores} complete; equal: {content(store) == whole}", flush=True)
            shutil.rmtree(store)
    result = {"kills": len(moments), "stores": stores, "different": different, "shards_written_again": redone}
    print(result | {"temporary files left": leftovers})
    if config.out:
        write_json(config.out, {**result, "workers": config.workers, "moments": moments})


if __name__ == "__main__":
    guarded(main)
