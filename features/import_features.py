"""Others' features: `python features/import_features.py --source DIR --faces STORE --name NAME --out CACHE`."""

import csv
import hashlib
import json
import re
from collections.abc import Sequence as Sequence_
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from checkpoints.errors import UserError, guarded
from checkpoints.lock import sole_writer
from checkpoints.ranges import check_ranges
from features.cache import HEADER, IMPORTED, finish_cache, is_damaged, source_of, write_features
from preprocessing.faces import FacesStore, Sequence

MADE_BY = "features/import_features.py"
KEYS = {"frame", "success", "face_id", "timestamp"}
MISSING = {"", "nan", "na", "n/a", "null", "none"}
NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|inf)", re.ASCII)
MAX_FRAMES = 10_000_000


@dataclass(frozen=True, kw_only=True)
class ImportFeatures:
    """Turn features of audio, pose or another network into a cache that stage 3 can fuse with others.

    The source holds, per sequence of the store, one of `ID.npy` `[T, D]`, `ID.csv` (numeric columns, a header; a
    column `frame` counts from 1) or a folder `ID` with one `00001.npy` `[D]` per frame. Rows that are missing, have an
    empty cell or a number that is not finite, or say `success` 0 (OpenFace: no face) are flagged invalid. `success`,
    `face_id` and `timestamp` are no features.
    """

    source: Path
    """Folder of the features."""
    faces: Path
    """Faces store whose sequences, frames and times the cache gets."""
    name: str
    """What made the features, with its version: caches of the same name and width count as the same features."""
    out: Path
    """Feature cache."""
    rate: float = 0.0
    """Rows per second; each frame gets the row nearest to its time. 0: one row per frame."""


@sole_writer
def main(config: ImportFeatures) -> dict[str, Any]:
    """Import; returns numbers of sequences and frames.

    Raises:
        UserError: The source has nothing for the store, or a file has the wrong form.
    """
    check_ranges(config)
    store = FacesStore(config.faces)
    if not config.source.is_dir():
        raise UserError(f"{config.source} is not a folder of features")
    ids = {sequence.id for sequence in store.sequences()}
    for path in config.out.iterdir() if config.out.exists() else ():
        if path.name.startswith("."):
            continue
        ours = path.suffix == ".safetensors" and (source_of(config.out, path.stem) or "").startswith(IMPORTED)
        if not (ours or (path.stem in ids and is_damaged(path))) or (config.out / HEADER).exists():
            raise UserError(f"--out {config.out} is not empty: choose another directory")
        path.unlink()  # left by an unfinished import
    dims: dict[int, str] = {}
    missing, frames, faces = [], 0, 0
    notes: dict[str, str] = {}  # the first of each kind
    for sequence in store.sequences():
        found = read_rows(config.source, sequence.id)
        if found is None:
            missing.append(sequence.id)
            continue
        dims.setdefault(found.shape[1], sequence.id)
        if len(dims) > 1:
            (a, first), (b, other) = dims.items()
            raise UserError(f"{config.source}: {first} has {a} features per frame and {other} has {b}")
        notes = oddities(sequence, found, config.rate) | notes
        features, valid = place_rows(found, store, sequence, config.rate)
        time_s = store.time_s[sequence.start : sequence.start + sequence.length]
        write_features(
            config.out,
            sequence.id,
            features=features,
            valid=valid,
            time_s=time_s,
            first_frame=sequence.first_frame,
            source=f"{IMPORTED} {config.name}",
        )
        frames, faces = frames + len(valid), faces + int(valid.sum())
    if not dims:
        raise UserError(
            f"{config.source} has no ID.npy, ID.csv or folder ID of any of the {len(missing)} sequences of "
            f"{config.faces}, such as {missing[0]!r}"
        )
    (dim,) = dims
    finish_cache(
        config.out,
        made_by=MADE_BY,
        config={"name": config.name, "rate": config.rate},
        parents={"faces": store.fingerprint},
        feature_id=hashlib.sha256(json.dumps(["imported", config.name, dim]).encode()).hexdigest(),
        dim=dim,
        encoder=f"imported:{config.name}",
        synthetic=bool(store.header.get("synthetic", False)),
    )
    for note in [*(f"the source has nothing for {id}" for id in missing[:5]), *notes.values()]:
        print(f"note: {note}", flush=True)
    count = len(store.sequences()) - len(missing)
    print(f"{config.out}: {count:,} sequences, {frames:,} frames, {faces:,} with features; {len(missing):,} lack any")
    return {"sequences": count, "frames": frames, "valid": faces, "missing": len(missing)}


def read_rows(source: Path, id: str) -> np.ndarray | None:
    """Features of one sequence, float32 `[T, D]`, NaN in missing rows; None if the source does not have the sequence.

    Raises:
        UserError: The file cannot be read as features.
    """
    for path, read in (
        (source / f"{id}.npy", _read_npy),
        (source / f"{id}.csv", _read_csv),
        (source / id, _read_folder),
    ):
        if path.exists():
            try:
                rows = read(path)
            except (OSError, ValueError) as error:
                raise UserError(f"{path} cannot be read as features: {error}") from None
            if rows.ndim != 2 or not rows.size:
                raise UserError(f"{path} holds an array of shape {rows.shape}, expected [T, D]")
            return rows
    return None


def place_rows(rows: np.ndarray, store: FacesStore, sequence: Sequence, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Give each frame of a sequence its row.

    Args:
        rows: `[T, D]`, row 0 at frame 1 or at time 0.
        store: Gives the frames' times.
        sequence: Which frames.
        rate: Rows per second; 0: one row per frame.

    Returns:
        Features `[length, D]` and valid `[length]`.

    Raises:
        UserError: A rate is given but the store has no times.
    """
    span = slice(sequence.start, sequence.start + sequence.length)
    wanted = np.arange(sequence.length) + sequence.first_frame - 1
    if rate:
        time_s = store.time_s[span]
        if not np.isfinite(time_s).all():
            raise UserError(f"{store.path}: the frames of {sequence.id} have no times, so --rate cannot be used")
        wanted = np.rint(time_s * rate).astype(int)
    inside = wanted < len(rows)
    features = np.zeros((sequence.length, rows.shape[1]), np.float32)
    features[inside] = rows[wanted[inside]]
    valid = inside & np.isfinite(features).all(axis=1) & ~too_large(features)
    features[~valid] = 0
    return features, valid


def too_large(rows: np.ndarray) -> np.ndarray:
    """Which rows of `[T, D]` hold a number that is too large for float16, `[T]`."""
    return (np.isfinite(rows) & (np.abs(rows) >= np.finfo(np.float16).max)).any(axis=1)


def oddities(sequence: Sequence, rows: np.ndarray, rate: float) -> dict[str, str]:
    """What looks odd in a sequence's rows `[T, D]`, by kind."""
    found = {}
    last = sequence.first_frame - 1 + sequence.length
    if not rate and abs(len(rows) - last) > max(5, 0.02 * last):
        found["length"] = (
            f"{sequence.id} has {len(rows):,} rows for {last:,} frames (other sequences may differ too): each frame "
            "gets one row; pass --rate if the rows have a rate of their own"
        )
    if lost := int(too_large(rows).sum()):
        found["size"] = (
            f"{lost:,} rows of {sequence.id} (perhaps of others too) hold numbers of 65,504 or more, too large for "
            "float16: they are marked as missing; scale the features down"
        )
    return found


def _read_npy(path: Path) -> np.ndarray:
    values = np.load(path, allow_pickle=False)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"it holds {values.dtype}, expected real numbers")
    return np.asarray(values, np.float32)


def _read_csv(path: Path) -> np.ndarray:
    with path.open(encoding="utf-8-sig", newline="") as file:
        names = [name.strip() for name in file.readline().split(",")]
        if all(_is_number(name) for name in names):
            raise ValueError("its first line holds numbers, expected names of the columns")
        lines = [(number, row) for number, row in enumerate(csv.reader(file), start=2) if row]
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        raise ValueError("its columns are not separated by commas: write it with commas")
    if "" in names:
        raise ValueError(f"column {names.index('') + 1} has no name: write it without an index")
    values = np.array([_cells(row, names, number) for number, row in lines]).reshape(len(lines), len(names))
    if "success" in names:
        values[values[:, names.index("success")] == 0, [[k] for k, n in enumerate(names) if n not in KEYS]] = np.nan
    features = values[:, [k for k, name in enumerate(names) if name not in KEYS]].astype(np.float32)
    if "frame" not in names:
        return features
    first: dict[float, int] = {}
    for (number, _), frame in zip(lines, values[:, names.index("frame")], strict=True):
        if not 1 <= frame < MAX_FRAMES or frame != int(frame):
            raise ValueError(f"line {number}: frame {frame:g}: frames are whole numbers, counted from 1")
        if frame in first:
            raise ValueError(
                f"line {number}: frame {frame:g} stands in line {first[frame]} too: keep one face a frame, and write "
                "other people's to files of their own, named after the sequences of the store"
            )
        first[frame] = number
    return _by_frame(values[:, names.index("frame")].astype(int), features)


def _cells(row: Sequence_[str], names: Sequence_[str], number: int) -> list[float]:
    """The numbers of a line; an empty cell or a word for a missing number is NaN."""
    if len(row) != len(names):
        raise ValueError(f"line {number} has {len(row)} cells, and the header {len(names)}")
    values = []
    for name, cell in zip(names, row, strict=True):
        text = cell.strip()
        missing = text.lower() in MISSING
        if not missing and not NUMBER.fullmatch(text):
            raise ValueError(f"line {number}, column {name!r}: {text[:40]!r} is not a number: leave the column out")
        values.append(np.nan if missing else float(text))
    return values


def _read_folder(path: Path) -> np.ndarray:
    files = sorted(file for file in path.glob("*.npy") if file.stem.isdigit())
    if not files:
        raise ValueError("it holds no NUMBER.npy")
    return _by_frame(
        np.array([int(file.stem) for file in files]), np.stack([_read_npy(file).ravel() for file in files])
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _by_frame(frames: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Rows in the order of frame numbers, from frame 1; frames that are not listed are NaN."""
    if frames.min() < 1 or len(np.unique(frames)) != len(frames):
        raise ValueError("frames must be distinct numbers, counted from 1")
    rows = np.full((frames.max(), values.shape[1]), np.nan, np.float32)
    rows[frames - 1] = values
    return rows


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(ImportFeatures)))
