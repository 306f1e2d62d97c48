"""The run directory: the configuration of a training run, its measurements, its state and its result.

It holds `config.json` (resolved configuration and parents), `metrics.jsonl` (one line per logged step), `state/` (to
resume from), `encoder/` or `head/` (the result) and, written last, `finished.json`.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

from checkpoints.artifact import Header, atomic_file, read_header, read_sealed, write_header, write_sealed
from checkpoints.content import content_hashes, refuse_changed
from checkpoints.errors import UserError
from checkpoints.forms import checked
from checkpoints.reading import parse_json

KIND = "run"
SCHEMA = 1
PRODUCT = (".safetensors", ".json", ".parquet")
"""Endings of the files that a run's result consists of; reports and pictures may be deleted."""
FREE = ("micro_batch_size", "workers", "save_every", "log_every", "compile")
"""Settings that may change when a run is resumed: how the work is done, not what is learnt."""


class Finished(TypedDict):
    """What marks a run as finished: its summary, and the hashes of the files of its result."""

    files: dict[str, str]


class RunDirectory:
    """A new run, or one to resume.

    Args:
        path: The directory.
        made_by: The command.
        config: Resolved configuration; to resume a run it must be the same (except for :data:`FREE`).
        parents: Fingerprints of the artifacts that the run trains on or starts from.
        main: Whether this process writes (rank 0).

    Raises:
        UserError: The directory holds a run of another command, configuration or data.
    """

    def __init__(
        self, path: Path, *, made_by: str, config: dict[str, Any], parents: dict[str, str], main: bool = True
    ) -> None:
        self.path = Path(path)
        self.state = self.path / "state"
        self.main = main
        self.listener: Callable[[dict[str, Any]], None] | None = None  # is called with each record too
        config = json.loads(json.dumps(config))  # as it will be read back: tuples become lists
        # Ignore hidden files: a run killed right at its start leaves only a temporary one.
        found = {item.name for item in self.path.iterdir()} if self.path.is_dir() else set()
        found = {name for name in found if not name.startswith(".")}
        if found == {"config.json"}:  # was refused or killed before its first step: any run may replace it
            read_run_header(self.path)
        elif "config.json" in found:
            self._check_same(made_by, config, parents)
            return
        elif found:
            raise UserError(f"{self.path} holds other files but no run: choose another --out")
        if main:
            write_header(
                self.path, "config.json", kind=KIND, schema=SCHEMA, made_by=made_by, config=config, parents=parents
            )

    def _check_same(self, made_by: str, config: dict[str, Any], parents: dict[str, str]) -> None:
        header = read_run_header(self.path)
        if header["made_by"].rpartition(" ")[2] != made_by:
            raise UserError(f"{self.path} holds a run of {header['made_by']}: choose another --out")
        # Settings that only one of two versions knows are not compared. A finished run may be read on any hardware.
        free = {*FREE, *(config.keys() ^ header["config"].keys())} | ({"arithmetic"} if self.finished else set())
        for what, old, new in (("setting", header["config"], config), ("input", header["parents"], parents)):
            for key in sorted({*old, *new}):
                if not (what == "setting" and key in free) and old.get(key) != new.get(key):
                    raise UserError(
                        f"{self.path} holds a run whose {what} {key} is {old.get(key)!r}, now it is {new.get(key)!r}: "
                        "repeat the original command, or choose another --out"
                    )

    def begin(self) -> None:
        """Claim the directory: from now on only the same command may use it."""
        if self.main:
            (self.path / "metrics.jsonl").touch()

    @property
    def finished(self) -> dict[str, Any] | None:
        """The summary of the finished run and the hashes of its files; None if it is not finished.

        Raises:
            UserError: A file of the result is not as the run left it.
        """
        path = self.path / "finished.json"
        if not path.exists():
            return None
        found = read_sealed(path, Finished)
        refuse_changed(self.path, found["files"], path.name)
        return dict(found)

    def finish(self, summary: dict[str, Any]) -> None:
        """Mark the run as finished."""
        if self.main:
            made = [file for suffix in PRODUCT for file in self.path.rglob(f"*{suffix}") if file.name[0] != "."]
            names = [file.relative_to(self.path).as_posix() for file in made]
            files = content_hashes(self.path, sorted(name for name in names if "state" not in name.split("/")))
            write_sealed(self.path / "finished.json", summary | {"files": files})

    def log(self, record: dict[str, Any]) -> None:
        """Append one record to `metrics.jsonl`."""
        if self.main:
            with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            if self.listener is not None:
                self.listener(record)

    def metrics(self) -> list[dict[str, Any]]:
        """Read the records so far."""
        return read_metrics(self.path)

    def rewind(self, step: int) -> None:
        """Drop the records of steps after `step`, which a resumed run will repeat."""
        if self.main and (self.path / "metrics.jsonl").exists():
            kept = [record for record in self.metrics() if record["step"] <= step]
            with atomic_file(self.path / "metrics.jsonl") as temporary:
                temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")


def read_run_header(path: Path) -> Header:
    """The header of a run.

    Raises:
        UserError: There is none.
    """
    return read_header(path, "config.json", kind=KIND, schema=SCHEMA, form=Header)


class Record(TypedDict):
    """A line of `metrics.jsonl`."""

    step: int


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Read the records of a run's `metrics.jsonl`; what is missing or damaged, as after a kill, is left out."""
    path = Path(run) / "metrics.jsonl"
    records: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        with suppress(UserError):
            records.append(dict(checked(parse_json(line, path), Record, path)))
    return records
