"""Kill preprocessing at random moments, start it again, and compare the store with an uninterrupted one.

    python benchmarks/preprocessing_kills.py --source DIR --out benchmarks/results/preprocessing_kills.json

Every completed store must equal the uninterrupted one byte for byte, leave no temporary file behind, and a shard that
was finished before a kill must not have been written again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.kills import kill_study
from checkpoints.artifact import write_json
from checkpoints.errors import guarded


@dataclass
class Config:
    """Kill and resume preprocessing at random moments."""

    source: Path
    """What to preprocess, for example the release of a SynthWild corpus."""
    kills: int = 20
    """Number of kills."""
    workers: int = 1
    """Processes of each run."""
    seed: int = 0
    """Seed of the random moments."""
    out: Path | None = None
    """Where to record the result as JSON."""


class Watch:
    """Looks at a store after each kill and at its end.

    Args:
        config: Options of the study.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.written: dict[str, int] = {}
        self.written_again: list[str] = []

    def arguments(self, store: Path) -> list[str]:
        """The command line."""
        script = Path(__file__).parents[1] / "preprocessing" / "run.py"
        source, workers = str(self.config.source), str(self.config.workers)
        return [str(script), "--source", source, "--out", str(store), "--workers", workers]

    def state(self, store: Path) -> dict[str, int]:
        """Finished shards; notes those that were written again since the previous kill."""
        done = {path.stem for path in (store / "log").glob("*.json")}
        now = {p.name: p.stat().st_mtime_ns for p in (store / "data").glob("*.parquet") if p.stem in done}
        self.written_again += [name for name, when in self.written.items() if now.get(name) != when]
        self.written = now
        return {"finished_shards": len(now)}

    def content(self, store: Path) -> dict[str, bytes]:
        """All files of a complete store."""
        self.state(store)
        self.written = {}
        return {p.relative_to(store).as_posix(): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


def main() -> None:
    """Run the study."""
    config = tyro.cli(Config, description=__doc__)
    watch = Watch(config)
    result = kill_study(
        watch.arguments, watch.content, kills=config.kills, seed=config.seed, state=watch.state, writing="data/.*.tmp"
    )
    result |= {"workers": config.workers, "shards_written_again": watch.written_again}
    if config.out is not None:
        write_json(config.out, result)
    print(
        f"{len(result['kills'])} kills, {result['results']} stores, differences: {result['different'] or 'none'}, "
        f"shards written again: {result['shards_written_again'] or 'none'}"
    )


if __name__ == "__main__":
    guarded(main)
