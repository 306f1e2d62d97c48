"""The feature cache: frozen encoder features of every frame, one file per video and subject.

    <cache>/<id>.safetensors   features [T, D] float16, valid [T] bool, time_s [T] float64, first_frame [1] int64
    <cache>/features.json      the header, written last: its presence means that the cache is complete

Row `t` holds frame `first_frame + t` (frames count from 1, as in Aff-Wild2). A frame without a face has
`valid = False`. A reader says which frames it wants (those of a label or an example file) and gets exactly these.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from checkpoints.artifact import Header, atomic_file, read_header, write_header
from checkpoints.content import content_hashes, refuse_changed
from checkpoints.errors import UserError
from checkpoints.forms import Count, Ids, Name, Size, checked
from checkpoints.framing import FramingForm

HEADER = "features.json"
KIND = "feature cache"
SCHEMA = 2
IMPORTED = "imported"
"""What the source of a file begins with if its features were imported, not extracted."""
PUBLISHED = ("timm:", "hf:")
"""What the encoder of a cache or a head begins with if it is a published name, not a path."""
AGAIN = "delete the file and run the command that made it again"


class CachedSequence(TypedDict):
    """A sequence in the header of a cache."""

    first_frame: Size
    frames: Count
    valid: Count
    hash: str


class CacheHeader(Header):
    """Header of a feature cache."""

    feature_id: str
    dim: Size
    sequences: dict[Name, CachedSequence]
    trained_on: Ids
    chosen_on: NotRequired[Ids]
    encoder: NotRequired[str]
    synthetic: NotRequired[bool]


class Made(TypedDict, total=False):
    """How features were made, in the configuration of a cache."""

    view: str
    flip: bool
    pooling: str | None
    framing: FramingForm
    sound: Literal["", "logmel", "model"]


@dataclass(frozen=True)
class Features:
    """Frame features of one subject of one video.

    Attributes:
        features: `[T, D]` float16. Rows that are not valid repeat the nearest valid row (the earlier one of two
            equally near); without any valid row they are zero.
        valid: `[T]` bool, true where the frame was seen by the encoder.
        time_s: `[T]` seconds; beyond the cached frames the clock goes on at the sequence's median rate.
        first_frame: number of the frame in row 0.
    """

    features: np.ndarray
    valid: np.ndarray
    time_s: np.ndarray
    first_frame: int

    @classmethod
    def never_seen(cls, length: int, dim: int) -> "Features":
        """Those of a sequence that no cache holds: `length` frames without a face, 30 per second."""
        return cls(np.zeros((length, dim), np.float16), np.zeros(length, bool), np.arange(length) / 30, 1)

    def __len__(self) -> int:
        return len(self.features)


def write_features(
    cache: Path,
    id: str,
    *,
    features: np.ndarray,
    valid: np.ndarray,
    time_s: np.ndarray,
    first_frame: int,
    source: str = "",
) -> None:
    """Write one sequence of a cache, atomically.

    Args:
        cache: the cache's directory, made when missing.
        id: `video` or `video_subject`; the file name.
        features: `[T, D]`, stored as float16.
        valid: `[T]` bool.
        time_s: `[T]` seconds.
        first_frame: number of the first row's frame, from 1.
        source: what the features were made of, to tell later whether they are stale (:func:`source_of`).

    Raises:
        UserError: for an id that cannot be a file name, arrays of different lengths, or features that are not finite.
    """
    if not id or "/" in id or id.startswith("."):
        raise UserError(f"{id!r} cannot name a file of the feature cache {cache}: rename the video")
    features = np.ascontiguousarray(features, dtype=np.float16)
    valid = np.ascontiguousarray(valid, dtype=bool)
    time_s = np.ascontiguousarray(time_s, dtype=np.float64)
    if features.ndim != 2 or valid.shape != features.shape[:1] or time_s.shape != features.shape[:1]:
        raise UserError(
            f"{id}: features {features.shape}, valid {valid.shape} and time_s {time_s.shape} do not describe the same "
            "frames"
        )
    advice = "float16 cannot hold what the encoder makes of them"
    _refuse_nonfinite(features, valid, f"{cache}/{id}", first_frame, advice)
    Path(cache).mkdir(parents=True, exist_ok=True)
    with atomic_file(Path(cache) / f"{id}.safetensors") as temporary:
        save_file(
            {"features": features, "valid": valid, "time_s": time_s, "first_frame": np.array([first_frame], np.int64)},
            temporary,
            metadata={"source": source} if source else None,
        )


def source_of(cache: Path, id: str) -> str | None:
    """What a sequence's file says it was made of; None if the file is missing, damaged or does not say."""
    try:
        with safe_open(Path(cache) / f"{id}.safetensors", framework="numpy") as file:
            return (file.metadata() or {}).get("source")
    except (OSError, SafetensorError):
        return None


def is_damaged(path: Path) -> bool:
    """Whether a file cannot be read as safetensors, as after a crash of the machine."""
    try:
        with safe_open(path, framework="numpy"):
            return False
    except (OSError, SafetensorError):
        return True


def finish_cache(
    cache: Path,
    *,
    made_by: str,
    config: dict,
    parents: dict[str, str],
    feature_id: str,
    dim: int,
    trained_on: Mapping[str, list[str]] = MappingProxyType({}),
    chosen_on: Mapping[str, list[str]] = MappingProxyType({}),
    **fields: Any,
) -> None:
    """Write the header, which declares the cache complete.

    Args:
        cache: directory whose `*.safetensors` are all written.
        made_by: the command.
        config: resolved configuration of that command.
        parents: name -> fingerprint of what the features were made from (`encoder`, `faces`).
        feature_id: hash of everything that fixes what a feature means (weights, view, pooling, normalisation, size).
        dim: D.
        trained_on: task name -> ids whose labels the encoder was trained on, by which evaluation finds leaks.
        chosen_on: task name -> ids whose labels chose which state of the encoder was kept, likewise.
        **fields: further header fields.

    Raises:
        UserError: when there is no file, or one of another width.
    """
    sequences: dict[str, dict[str, Any]] = {}
    for path in sorted(Path(cache).glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            frames, width = file.get_slice("features").get_shape()
            if width != dim:
                raise UserError(f"{path} holds {width}-d features, the cache {dim}-d: {AGAIN}")
            sequences[path.stem] = {
                "first_frame": int(file.get_tensor("first_frame")[0]),
                "frames": frames,
                "valid": int(file.get_tensor("valid").sum()),
            }
    hashes = content_hashes(Path(cache), [f"{id}.safetensors" for id in sequences])
    for id, facts in sequences.items():
        facts["hash"] = hashes[f"{id}.safetensors"]
    if not sequences:
        raise UserError(f"no features were written to {cache}: nothing to finish")
    write_header(
        cache,
        HEADER,
        kind=KIND,
        schema=SCHEMA,
        made_by=made_by,
        config=config,
        parents=parents,
        feature_id=feature_id,
        dim=dim,
        sequences=sequences,
        trained_on=dict(trained_on),
        chosen_on=dict(chosen_on),
        **fields,
    )


class FeatureCache:
    """A complete feature cache, open for reading.

    Attributes:
        path: its directory.
        header: the whole header.
        feature_id: what the features mean; a head accepts only the id it was trained on.
        made: how the features were made; more than these fields.
        dim: D.
        ids: sorted ids of the sequences.
        trained_on: task name -> ids whose labels the encoder was trained on.
        chosen_on: task name -> ids whose labels chose the encoder's state; None if an older version left that out.
    """

    def __init__(self, path: Path | str) -> None:
        """Open `path`.

        Raises:
            UserError: when it is missing, incomplete, empty, or of another kind or schema.
        """
        self.path = Path(path)
        self.header = read_header(self.path, HEADER, kind=KIND, schema=SCHEMA, form=CacheHeader)
        self.made = checked(self.header["config"], Made, self.path / HEADER)
        self.feature_id: str = self.header["feature_id"]
        self.dim: int = self.header["dim"]
        self.sequences = self.header["sequences"]
        self.ids: list[str] = sorted(self.sequences)
        self.trained_on: dict[str, list[str]] = self.header["trained_on"]
        self.chosen_on: dict[str, list[str]] | None = self.header.get("chosen_on")
        self._checked = False

    def check(self, *, again: bool = False) -> None:
        """Compare every file with the header, by hashes that are remembered until a file changes (or `again`).

        Raises:
            UserError: Names the first file that was changed or is missing.
        """
        expected = {f"{id}.safetensors": str(facts["hash"]) for id, facts in self.sequences.items()}
        refuse_changed(self.path, expected, HEADER, again=again)
        self._checked = True

    def __contains__(self, id: str) -> bool:
        return id in self.sequences

    def span(self, id: str) -> tuple[int, int]:
        """First and last frame number cached for `id`."""
        sequence = self._sequence(id)
        return sequence["first_frame"], sequence["first_frame"] + sequence["frames"] - 1

    def read(self, id: str, length: int | None = None) -> Features:
        """Features of the frames `1 .. length`, or of the frames that are cached.

        Args:
            id: the sequence.
            length: number of frames wanted (a label file's lines); None: the frames that are cached.

        Returns:
            Exactly `length` rows: frames that are not cached, and gaps, are flagged invalid and filled with the
            nearest valid row.

        Raises:
            UserError: for an unknown id, a damaged file, or features that are not finite.
        """
        sequence = self._sequence(id)
        if not self._checked:
            self.check()
        path = self.path / f"{id}.safetensors"
        arrays = _load(path)
        features, valid, time_s = arrays["features"], arrays["valid"], arrays["time_s"]
        start = int(arrays["first_frame"][0])
        same_frames = start == sequence["first_frame"] and len(features) == len(valid) == len(time_s)
        if features.shape != (sequence["frames"], self.dim) or not same_frames:
            raise UserError(
                f"{path} holds features {features.shape}, valid {valid.shape} and time_s {time_s.shape} from frame "
                f"{start} on, the cache's header says {sequence['frames']} frames of {self.dim} dimensions from frame "
                f"{sequence['first_frame']} on: {AGAIN}"
            )
        _refuse_nonfinite(features, valid, str(path), start, AGAIN)
        first, count = (start, len(features)) if length is None else (1, length)
        rows = np.arange(first, first + count) - start
        inside = (rows >= 0) & (rows < len(features))
        seen = np.zeros(count, bool)
        seen[inside] = valid[rows[inside]]
        return Features(fill_nearest(features, valid, rows), seen, _clock(time_s, rows), first)

    def _sequence(self, id: str) -> CachedSequence:
        if id not in self.sequences:
            raise UserError(f"the feature cache {self.path} has no sequence {id!r}: extract features of that video")
        return self.sequences[id]


def moved(encoder: str, old: Path, new: Path) -> str:
    """The path of an encoder relative to `new`, given the one relative to `old`; published names and "" stay."""
    return encoder if not encoder or encoder.startswith(PUBLISHED) else os.path.relpath(old / encoder, new)


def fill_nearest(features: np.ndarray, valid: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows `[N, D]` of `features` `[T, D]`; rows that are not `valid` (`[T]` bool) become the nearest valid one.

    The `rows` `[N]` may lie outside `0 .. T-1`. The result is zeros when no row is valid.
    """
    known = np.flatnonzero(valid)
    if not len(known):
        return np.zeros((len(rows), features.shape[1]), features.dtype)
    if len(known) == len(valid) == len(rows) and rows[0] == 0 and rows[-1] == len(rows) - 1:
        return features  # nothing to fill: no copy
    after = np.searchsorted(known, rows)
    right = known[np.minimum(after, len(known) - 1)]
    left = known[np.maximum(after - 1, 0)]
    return features[np.where(np.abs(rows - left) <= np.abs(right - rows), left, right)]


def _clock(time_s: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Times of `rows`, carried on where there are none at the median frame interval (1/30 s if there is none)."""
    if not len(time_s):
        return np.maximum(rows, 0) / 30.0
    known = np.flatnonzero(np.isfinite(time_s))
    if not len(known):  # the source has no clock
        return np.full(len(rows), np.nan)
    near = known[np.clip(np.searchsorted(known, rows, side="right") - 1, 0, None)]
    return time_s[near] + (rows - near) * (median_step(time_s) or 1 / 30)


def median_step(time_s: np.ndarray) -> float:
    """Median interval of frame times in seconds, of those that are known; 0 if there is none."""
    steps = np.diff(time_s)
    steps = steps[np.isfinite(steps)]
    return float(np.median(steps)) if len(steps) else 0.0


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        arrays = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}): {AGAIN}") from error
    missing = {"features", "valid", "time_s", "first_frame"} - set(arrays)
    if missing:
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}: it is not a file of a feature cache")
    return arrays


def _refuse_nonfinite(features: np.ndarray, valid: np.ndarray, where: str, first_frame: int, advice: str) -> None:
    # Infinities and NaNs are the float16 bit patterns from 0x7C00 (positive) and from 0xFC00 (negative) on: two integer
    # maxima find them at the speed of memory.
    if not features.size or (features.view(np.int16).max() < 0x7C00 and features.view(np.uint16).max() < 0xFC00):
        return
    broken = np.flatnonzero(~np.isfinite(features).all(axis=1) & valid)
    if len(broken):
        raise UserError(
            f"{where}: the features of frame {first_frame + broken[0]} are not finite ({len(broken)} such frames): "
            f"{advice}"
        )
