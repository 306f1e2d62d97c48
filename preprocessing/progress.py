"""A faces store while it is being made: its settings, which shards are finished, and what completes it."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.artifact import TEMPORARY, read_json, write_json
from checkpoints.content import content_hashes
from checkpoints.errors import UserError
from checkpoints.framing import TO_MEASURE
from checkpoints.lock import remove_leftovers
from preprocessing.detect import Detector
from preprocessing.faces import DATA, HEADER, read_store_header
from preprocessing.items import Group
from preprocessing.labelled import write_labels
from preprocessing.measure_framing import measure_framing
from preprocessing.shard import LOG, Settings, read_log
from preprocessing.sheet import SHEET, write_sheet
from preprocessing.write_faces import finish_store
from wildaffect.tasks.labels import is_synthetic

CONFIG = "config.json"


def begin(store: Path, settings: Settings, groups: Sequence[Group]) -> None:
    """Start a store, or check that an existing one fits; remove shards whose sources changed.

    Raises:
        UserError: The folder holds something else, or a store with other settings or sources.
    """
    path, wanted = store / CONFIG, settings.as_dict()
    if not path.exists():
        # Hidden files do not count: a run that was killed at once leaves nothing else.
        if any(not item.name.startswith(".") for item in store.iterdir()):
            raise UserError(f"--out {store} is not empty and not a faces store: choose another directory")
        write_json(path, wanted)
    elif (begun := read_json(path)) != wanted:
        raise UserError(f"--out {store} was started with {begun}, not {wanted}: choose another directory")
    names = {group.name for group in groups}
    sources = {item.name for group in groups for item in group.items}
    for log in sorted((store / LOG).glob("*.json")):
        if log.stem in names:
            continue
        others = set(read_log(store, log.stem)["sources"])
        if not others & sources:
            raise UserError(
                f"--out {store} also holds {sorted(others)[0]!r}, which is not in any --source: "
                "give all sources, or another directory"
            )
        (store / HEADER).unlink(missing_ok=True)
        log.unlink()
        (store / DATA / f"{log.stem}.parquet").unlink(missing_ok=True)


def is_finished(store: Path, group: Group) -> bool:
    """Whether a group's shard is written, and neither its sources nor its file have changed since."""
    if not (store / LOG / f"{group.name}.json").exists():
        return False
    log = read_log(store, group.name)
    shard = store / DATA / f"{group.name}.parquet"
    found = content_hashes(shard.parent, [shard.name])[shard.name] if shard.exists() else ""
    if log["digest"] == group.digest and log["hash"] != found:
        print(f"{shard} was deleted or changed: made again", flush=True)
    return log["digest"] == group.digest and log["hash"] == found


def is_complete(store: Path, settings: Settings) -> bool:
    """Whether a store has its data sheet and its header, and the header names the framing that was asked for."""
    if not (store / SHEET).exists():
        return False
    try:
        framing = read_store_header(store)["framing"]
    except UserError:  # missing, damaged, or of another version: it is written again
        return False
    return settings.framing.as_dict() in (TO_MEASURE.as_dict(), framing)


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
        UserError: No frame could be read.
        OSError: The disk is full.
    """
    remove_leftovers((store / DATA).glob(TEMPORARY))  # of a machine of a cluster that died
    logs = [read_log(store, group.name) for group in groups]
    problems: list[Any] = [*renamed, *(problem for log in logs for problem in log["problems"])]
    problems.sort(key=lambda problem: (problem["source"], problem["problem"]))
    items, frames, faces = np.sum([(log["items"], log["frames"], log["faces"]) for log in logs], axis=0).tolist()
    if not frames:
        shutil.rmtree(store / LOG)
        (store / CONFIG).unlink()
        raise UserError(f"no frame could be read: {problems[0]['source']} {problems[0]['problem']}")
    names = sorted({item.name.split("/")[0] for group in groups for item in group.items})
    hashes = {f"{group.name}.parquet": log["hash"] for group, log in zip(groups, logs, strict=True) if log["hash"]}
    try:
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
            hashes=hashes,
            synthetic=all(is_synthetic(source) for source in sources),
        )
        write_sheet(store, read_json(store / HEADER), [image for log in logs for image in log["no_face"]])
    except (UserError, OSError):
        reopen(store)
        raise
    for problem in problems[:10]:
        print(f"problem: {problem['source']!r} {problem['problem']}")
    if len(problems) > 10:
        print(f"... and {len(problems) - 10} more problems in {store / HEADER}")
    print(f"{store}: {items} items, {frames} frames, {faces} faces")
