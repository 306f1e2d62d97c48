"""How long does the audit of a release of Aff-Wild2's size take, and how much memory?

    python -m benchmarks.audit --out benchmarks/results/audit.json

The release has as many label files, annotated frames and listed frames as the 6th ABAW published, drawn at random, with
an empty file for every crop, and no videos (whose decoding is FFmpeg's time). It is deleted in the end.
"""

import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from audit.examine import PUBLISHED, TEST_FILES, examine
from audit.leakage import TEST
from audit.summary import write_audit_page
from benchmarks.predict_clip import Memory, held
from checkpoints.artifact import write_json
from checkpoints.errors import guarded
from wildaffect.tasks import TASKS
from wildaffect.tasks.challenge import header

VIDEOS = 578


@dataclass
class Config:
    """Measure the audit's time and memory."""

    share: float = 0.25
    """Share of Aff-Wild2's frames; making all of them takes a quarter of an hour."""
    out: Path | None = None
    """Where to record the result as JSON."""


def main(config: Config) -> None:
    """Make the release, audit it in a process of its own, and print what it took."""
    with tempfile.TemporaryDirectory() as folder:
        made = make_release(Path(folder) / "release", config.share)
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            result = made | pool.submit(measure, Path(folder) / "release").result()
    print(result)
    if config.out:
        write_json(config.out, result)


def measure(root: Path) -> dict[str, Any]:
    """Audit a release in this process."""
    memory, before, start = Memory(), held()[0], time.perf_counter()
    found = examine(root)
    write_audit_page(root.parent / "audit.html", found)
    end = time.perf_counter()
    peak = memory.peak(start, end)[0]
    return {"seconds": round(end - start, 1), "private_mib_before": round(before), "private_mib": round(peak)}


def make_release(root: Path, share: float) -> dict[str, int]:
    """Write label files, example files and empty crops; returns how many there are."""
    rng = np.random.default_rng(0)
    lines = lists = 0
    lengths: dict[str, int] = {}
    for (name, split), (files, frames) in PUBLISHED.items():
        task = TASKS[name]
        weights = rng.gamma(2.0, size=files)
        counts = np.maximum(1, np.round(weights / weights.sum() * frames * share)).astype(int)
        ids = [f"video{number}" for number in rng.permutation(VIDEOS + 16)[:files]]
        lengths |= {id: max(int(count), lengths.get(id, 0)) for id, count in zip(ids, counts, strict=True)}
        labels = [task.format_row(row) for row in task.decode(rng.random((1000, task.out_dim), np.float32))]
        if split == TEST:
            path = root / "test_set_examples" / f"{TEST_FILES[name].strip('*')}_example.txt"
            rows = [f"{id}/{t + 1:05d}.jpg,0" for id, count in zip(ids, counts, strict=True) for t in range(count)]
            lists += len(rows)
            write(path, [header(name), *rows])
            continue
        for id, count in zip(ids, counts, strict=True):
            path = root / "6th_ABAW_Annotations" / task.folders[0] / split / f"{id}.txt"
            write(path, [task.header, *(labels[t % 1000] for t in range(count))])
            lines += int(count)
    for id, length in lengths.items():
        folder = root / "cropped_aligned" / id
        folder.mkdir(parents=True)
        for t in range(length):
            (folder / f"{t + 1:05d}.jpg").touch()
    return {"subjects": len(lengths), "crops": sum(lengths.values()), "lines": lines, "listed": lists}


def write(path: Path, lines: list[str]) -> None:
    """Write a text file with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))
