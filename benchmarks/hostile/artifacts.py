"""Every file of every artifact, damaged in many ways and read again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.hostile.line import Line, commands
from benchmarks.hostile.mutate import damage
from benchmarks.hostile.outcome import Tally, run_command
from checkpoints.encoder import load_encoder
from checkpoints.errors import UserError
from checkpoints.state import load_state
from features.cache import FeatureCache
from preprocessing.copies import CACHE
from preprocessing.faces import FacesStore
from pretrain.duplicates import store_hashes
from temporal.heads import load_head
from wildaffect.inference.models import load_models
from wildaffect.tasks.predictions import read_predictions
from wildaffect.training.rundir import RunDirectory, read_run_header

FOR_PEOPLE = {".html", ".md", ".png", ".jsonl"}
"""Endings of files that no command reads for its result."""
Read = Callable[[Path], list[Any]]
WAYS = ("deleted", "cut", "flipped", "damaged", "emptied", "another's", "a folder", "a dangling link", "a loop")
"""The last of these stand in the file's place."""


def digest(parts: list[Any]) -> str:
    """Hash of what a reader found."""
    found = hashlib.sha256()
    for part in parts:
        array = part.detach().numpy() if isinstance(part, torch.Tensor) else part
        text = array.tobytes() if isinstance(array, np.ndarray) else array
        found.update(text if isinstance(text, bytes) else json.dumps(text, sort_keys=True, default=str).encode())
    return found.hexdigest()


def read_store(path: Path) -> list[Any]:
    """Header, index and pictures of a faces store."""
    store = FacesStore(path)
    pictures = [jpeg or b"" for jpeg, _ in store.pictures(0, len(store))]
    pictures += [store.jpeg(row) or b"" for row in range(len(store))]  # from the mapped copy
    index = [store.video.tolist(), store.subject.tolist(), store.frame, store.time_s, store.valid]
    return [store.fingerprint, store.framing.as_dict(), *index, *pictures, store_hashes(store)]


def read_encoder(path: Path) -> list[Any]:
    """Weights, configuration and history of an encoder."""
    encoder = load_encoder(path)
    return [encoder.fingerprint, vars(encoder.config), encoder.provenance, *encoder.state_dict().values()]


def read_cache(path: Path) -> list[Any]:
    """Everything in a feature cache."""
    cache = FeatureCache(path)
    read = [cache.read(id) for id in cache.ids]
    parts = [part for item in read for part in (item.features, item.valid, item.time_s, item.first_frame)]
    return [cache.feature_id, cache.dim, cache.header.get("trained_on"), cache.ids, *parts]


def read_head(path: Path) -> list[Any]:
    """Weights and record of a head."""
    head = load_head(path)
    facts = [head.name, vars(head.architecture), head.trained_on, head.encoder_trained_on, head.smoothing, head.record]
    return [*map(str, facts), *head.network.state_dict().values()]


def read_bundle(path: Path) -> list[Any]:
    """Weights of all heads and encoders of a bundle."""
    models = load_models([path])
    weights = [head.network.state_dict() for head in models.heads]
    weights += [embedder.encoder.state_dict() for embedder in models.embedders.values()]
    return [models.fingerprint, models.kinds, *(tensor for state in weights for tensor in state.values())]


def read_tables(path: Path) -> list[Any]:
    """Values of a folder of prediction tables."""
    tracks = read_predictions(path).items()
    names = ("frames", "time_s", "face")
    return [part for id, track in tracks for part in (id, *(getattr(track, n) for n in names), *track.values.values())]


def read_run(path: Path) -> list[Any]:
    """What a finished run says when its command is repeated."""
    header = read_run_header(path)
    made_by = header["made_by"].rpartition(" ")[2]
    run = RunDirectory(path, made_by=made_by, config=header["config"], parents=header["parents"])
    if run.finished is None:
        raise UserError(f"{path} is not finished")
    return [run.finished]


def read_state(path: Path) -> list[Any]:
    """The newest state of a run that is intact."""
    loaded = load_state(path)
    if loaded is None:
        raise UserError(f"{path} holds no intact state")
    return [loaded[0], loaded[2], *(tensor for group in loaded[1].values() for tensor in group.values())]


def artifacts(line: Line, work: Path) -> dict[str, tuple[Path, Read]]:
    """Every artifact of the line with its reader, by name."""
    tables = work / "predictions"
    end = run_command(commands(line, tables)["predict"])
    if end.status:
        raise UserError(f"nothing can be predicted: {end.output}")
    return {
        "store": (line.faces, read_store),
        "encoder": (line.mae / "encoder", read_encoder),
        "cache": (line.cache, read_cache),
        "head": (line.head / "head", read_head),
        "bundle": (line.bundle, read_bundle),
        "predictions": (tables, read_tables),
        "state": (line.mae / "state", read_state),
        **{f"run of {run.name}": (run, read_run) for run in (line.mae, line.expr, line.head)},
    }


def damage_artifacts(line: Line, work: Path, rng: np.random.Generator, most: int = 10**9) -> Tally:
    """Damage each file in all ways; at most `most` cases."""
    tally = Tally()
    others: dict[str, list[bytes]] = {}
    for file in sorted(path for path in line.root.rglob("*") if path.suffix and path.is_file()):
        others.setdefault(file.suffix, []).append(file.read_bytes())
    for kind, (source, read) in artifacts(line, work).items():
        place = work / "damaged" / kind
        shutil.copytree(source, place, ignore=shutil.ignore_patterns(CACHE, ".lock"))
        whole = digest(read(place))
        files = [file for file in sorted(place.rglob("*")) if file.is_file() and file.suffix != ".lock"]
        contents = {file: file.read_bytes() for file in files}
        cases = [(file, way) for file in files for way in WAYS]
        rng.shuffle(cases)
        for file, way in cases[: max(1, most // 10)]:
            name = f"{kind}: {file.relative_to(place)} {way}"
            what = _damage(file, way, contents[file], others.get(file.suffix, [b""]), rng)
            try:
                with contextlib.redirect_stdout(None), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # that a state before the damaged one is loaded
                    after = digest(read(place))
            except UserError as error:
                named = file.name in str(error) or str(place) in str(error)
                tally.add(name, "refused", "" if named else f"the file is not named: {error}")
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                fault = f"{what}: {type(error).__name__}: {error} ({where.filename}:{where.lineno})"
                tally.add(name, "exception", fault)
            else:
                earlier = kind == "state" and after != whole  # the state before the damaged one, with a warning
                silent = after != whole and not earlier and file.suffix not in FOR_PEOPLE
                tally.add(name, "as before" if after == whole else "another", f"{what}: used" if silent else "")
            _restore(contents, file)
    return tally


def _restore(contents: dict[Path, bytes], damaged: Path) -> None:
    """Write the damaged file again, and what the reader has removed because of it."""
    if damaged.is_dir() and not damaged.is_symlink():
        damaged.rmdir()
    else:
        damaged.unlink(missing_ok=True)
    for file, content in contents.items():
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def _damage(file: Path, way: str, before: bytes, others: list[bytes], rng: np.random.Generator) -> str:
    """Damage a file that holds `before`; `others` are the contents of files with the same ending."""
    file.unlink()
    if way == "a folder":
        file.mkdir()
    elif way == "a dangling link":
        file.symlink_to(file.with_name("nothing"))
    elif way == "a loop":
        file.symlink_to(file)
    elif way == "emptied":
        file.touch()
    elif way == "another's":
        file.write_bytes(others[int(rng.integers(len(others)))])
    if way in ("deleted", "a folder", "a dangling link", "a loop", "emptied", "another's"):
        return way
    at = int(rng.integers(max(len(before), 1)))
    if way == "cut":
        file.write_bytes(before[:at])
        return f"cut at {at}"
    if way == "flipped" and before:
        flipped = bytearray(before)
        flipped[at] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(flipped))
        return f"bit flipped at {at}"
    what, after = damage(before, b"{}[]" + before[::-1], rng)
    file.write_bytes(after)
    return what
