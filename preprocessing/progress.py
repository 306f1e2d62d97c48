"""A faces store while it is being made: its settings, which shards are finished, and what completes it."""

import errno
import fcntl
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from checkpoints.artifact import read_json, write_json
from checkpoints.errors import UserError
from checkpoints.framing import TO_MEASURE
from preprocessing.detect import Detector
from preprocessing.faces import DATA, HEADER, SCHEMA, finish_store
from preprocessing.items import Group
from preprocessing.labelled import write_labels
from preprocessing.measure_framing import measure_framing
from preprocessing.shard import LOG, Settings
from preprocessing.sheet import SHEET, write_sheet
from wildaffect.tasks.labels import is_synthetic

CONFIG = "config.json"
LOCK = ".lock"


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Be the only run that writes a store.

    Raises:
        UserError: Another run writes it.
    """
    with (store / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--out {store} is being written by another run: wait for it or end it") from None
        yield


@contextmanager
def explain_full_disk(store: Path) -> Iterator[None]:
    """Turn the error of a full disk into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"the disk of {store} is full: free some space and run the same command again; finished shards are kept"
        ) from None


def begin(store: Path, settings: Settings, groups: Sequence[Group]) -> None:
    """Start a store, or check that an existing one fits; remove shards whose sources changed.

    Raises:
        UserError: The folder holds something else, or a store with other settings or sources.
    """
    path, wanted = store / CONFIG, settings.as_dict()
    if not path.exists():
        # Hidden files do not count: a run that was killed at once leaves nothing else.
        if any(not item.name.startswith(".") for item in store.iterdir()):
            raise UserError(f"--out {store} is not empty and no faces store: choose another directory")
        write_json(path, wanted)
    elif (begun := read_json(path)) != wanted:
        raise UserError(f"--out {store} was begun with {begun}, not {wanted}: choose another directory")
    names = {group.name for group in groups}
    sources = {item.name for group in groups for item in group.items}
    for log in sorted((store / LOG).glob("*.json")):
        if log.stem in names:
            continue
        others = set(read_json(log)["sources"])
        if not others & sources:
            raise UserError(
                f"--out {store} also holds {sorted(others)[0]!r}, which is not in any --source: "
                "give all sources, or another directory"
            )
        (store / HEADER).unlink(missing_ok=True)
        log.unlink()
        (store / DATA / f"{log.stem}.parquet").unlink(missing_ok=True)


def is_finished(store: Path, group: Group) -> bool:
    """Whether a group's shard is written and its sources have not changed since."""
    log = store / LOG / f"{group.name}.json"
    return log.exists() and read_json(log)["digest"] == group.digest


def is_complete(store: Path, settings: Settings) -> bool:
    """Whether a store has its data sheet and its header, and the header names the framing that was asked for."""
    if not (store / HEADER).exists() or not (store / SHEET).exists():
        return False
    header = read_json(store / HEADER)
    return header["schema"] == SCHEMA and settings.framing.as_dict() in (TO_MEASURE.as_dict(), header["framing"])


def reopen(store: Path) -> None:
    """Mark a store as incomplete."""
    (store / HEADER).unlink(missing_ok=True)


def complete(
    store: Path,
    settings: Settings,
    load_detector: Callable[[], Detector] | None,
    sources: Sequence[str],
    groups: Sequence[Group],
    renamed: Sequence[dict[str, str]],
) -> None:
    """Write the labels, header and data sheet of a store whose shards are all finished.

    `load_detector` loads the detector that measures the framing of ready crops, `sources` are the sources as they were
    given, and `renamed` the problems from listing them.

    Raises:
        UserError: No frame could be read, or the disk is full.
    """
    logs = [read_json(store / LOG / f"{group.name}.json") for group in groups]
    problems = [*renamed, *(problem for log in logs for problem in log["problems"])]
    problems.sort(key=lambda problem: (problem["source"], problem["problem"]))
    items, frames, faces = (sum(log[name] for log in logs) for name in ("items", "frames", "faces"))
    if not frames:
        shutil.rmtree(store / LOG)
        (store / CONFIG).unlink()
        (store / LOCK).unlink()
        raise UserError(f"no frame could be read: {problems[0]['source']} {problems[0]['problem']}")
    names = sorted({item.name.split("/")[0] for group in groups for item in group.items})
    try:
        with explain_full_disk(store):
            write_labels(store, [item for group in groups for item in group.items])
            finish_store(
                store,
                made_by="preprocessing/run.py",
                config=settings.as_dict() | {"sources": names},
                image_size=settings.size,
                framing=measure_framing(store, load_detector) if settings.framing == TO_MEASURE else settings.framing,
                problems=problems,
                items=items,
                frames=frames,
                faces=faces,
                synthetic=all(is_synthetic(source) for source in sources),
            )
            write_sheet(store, read_json(store / HEADER), [image for log in logs for image in log["no_face"]])
    except UserError:
        reopen(store)
        raise
    for problem in problems[:10]:
        print(f"problem: {problem['source']!r} {problem['problem']}")
    if len(problems) > 10:
        print(f"... and {len(problems) - 10} more problems in {store / HEADER}")
    print(f"{store}: {items} items, {frames} frames, {faces} faces")
