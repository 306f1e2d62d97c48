"""Others' features: `python features/import_features.py --source DIR --faces STORE --name NAME --out CACHE`."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from checkpoints.decimals import LAST_FRAME, whole_number
from checkpoints.errors import UserError, guarded
from checkpoints.lock import sole_writer
from checkpoints.ranges import check_ranges
from checkpoints.reading import (
    EMPTY,
    in_lines,
    parse_rows,
    read_csv,
    read_npy,
    shown,
    visible,
)
from features.cache import HEADER, IMPORTED, finish_cache, is_damaged, source_of, write_features
from preprocessing.faces import FacesStore, Sequence

MADE_BY = "features/import_features.py"
SPARSEST = 100
"""Most frames for one row, if there are many."""
KEYS = {"frame", "success", "face_id", "timestamp"}
MISSING = {*EMPTY, "inf", "infinity"}


@dataclass(frozen=True, kw_only=True)
class ImportFeatures:
    """Turn features of audio, pose or another network into a cache that stage 3 can fuse with others.

    The source holds, per sequence of the store, one of `ID.npy` `[T, D]`, `ID.csv` (numeric columns, a header; a
    column `frame` counts from 1) or a folder `ID` with one `00001.npy` `[D]` per frame. Rows that are missing, have an
    empty cell or a number that is not finite, or have `success` 0 (OpenFace: no face) are flagged invalid. `success`,
    `face_id` and `timestamp` are not features.
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
            rows = read(path)
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
    values = read_npy(path)
    if values.dtype.kind not in "biuf":
        raise UserError(f"{path} holds {values.dtype}, expected real numbers")
    return _narrow(values)


def _narrow(values: np.ndarray) -> np.ndarray:
    """As float32; what is too large for it becomes infinite, and is marked as missing later."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32)


def _read_csv(path: Path) -> np.ndarray:
    names, rows = read_csv(path)
    refuse = in_lines(path)
    for what, name in (("no name", ""), ("the name of another", next((n for n in names if names.count(n) > 1), None))):
        if name in names:
            raise refuse(-1, "", f"column {names.index(name) + 1} has {what} ({shown(name)}): leave it out")
    # An empty cell and a number that is not finite are missing.
    cells = [[_missing_as_nothing(cell) for cell in row] for row in rows]
    values = parse_rows([",".join(cell or "0" for cell in row) for row in cells], names, refuse)
    values[[[not cell for cell in row] for row in cells]] = np.nan
    if "success" in names:
        values[values[:, names.index("success")] == 0, [[k] for k, n in enumerate(names) if n not in KEYS]] = np.nan
    features = _narrow(values[:, [k for k, name in enumerate(names) if name not in KEYS]])
    if "frame" not in names:
        return features
    frames = values[:, names.index("frame")]
    first: dict[float, int] = {}
    for row, frame in enumerate(frames):
        if not 1 <= frame <= LAST_FRAME or frame != int(frame):
            raise refuse(row, "frame", f"{frame:.10g}: frames are whole numbers, counted from 1")
        if first.setdefault(frame, row) != row:
            raise refuse(
                row,
                "frame",
                f"frame {frame:g} is also in line {first[frame] + 2}: keep one face a frame, and write other "
                "people's to files of their own, named after the sequences of the store",
            )
    return _by_frame(path, frames.astype(int), features)


def _missing_as_nothing(cell: str) -> str:
    text = cell.strip(" \t")
    return "" if text.lower().lstrip("+-") in MISSING else text


def _read_folder(path: Path) -> np.ndarray:
    files = [(number, file) for file in visible(path.glob("*.npy")) if (number := whole_number(file.stem)) is not None]
    rows = {number: _read_npy(file).ravel() for number, file in files}
    if not rows:
        raise UserError(f"{path} holds no NUMBER.npy")
    if min(rows) < 1 or len(rows) < len(files) or len({len(row) for row in rows.values()}) > 1:
        raise UserError(f"{path}: expected one NUMBER.npy a frame, counted from 1, all of the same length")
    return _by_frame(path, np.array([*rows]), np.stack([*rows.values()]))


def _by_frame(path: Path, frames: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Rows in the order of frame numbers, from frame 1; frames that are not listed are NaN.

    Raises:
        UserError: There are so few for the highest number that it must be a fault, and would fill the memory.
    """
    last = max(frames, default=0)
    if last > SPARSEST * (len(frames) + SPARSEST):
        raise UserError(f"{path} has {len(frames):,} rows and a frame {last:,}: correct the number of that frame")
    rows = np.full((last, values.shape[1]), np.nan, np.float32)
    rows[frames - 1] = values
    return rows


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(ImportFeatures)))
