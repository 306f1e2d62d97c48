"""Rows of a shard: from faces found in a video, or from pictures that already are faces."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.decimals import LAST_FRAME, whole_number
from checkpoints.errors import UserError
from preprocessing.align import encode_jpeg
from preprocessing.detect import iou
from preprocessing.folders import kind_of, numbered_files
from preprocessing.items import Item
from preprocessing.pictures import fit, picture_bytes, read_picture
from preprocessing.tracks import Track, group_subjects, name_subjects
from preprocessing.video import read_frames, read_times
from wildaffect.tasks.labels import children

_RECORD = struct.Struct("<15f?I")  # box, landmarks, score; interpolated; bytes of the JPEG that follows


@dataclass
class Found:
    """The faces of one video: an index in memory, and everything else in a temporary file.

    Attributes:
        times: Presentation time of every frame.
        tracks: The tracks.
        places: For each track, its frame numbers and their offsets in `spool`.
        spool: Unnamed file that disappears with the process.
        no_face: Numbers and thumbnails of some frames without a face.
        problems: One line each.
    """

    spool: Any
    times: array[float] = field(default_factory=lambda: array("d"))
    tracks: list[Track] = field(default_factory=list)
    places: list[tuple[array[int], array[int]]] = field(default_factory=list)
    no_face: list[tuple[int, bytes]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def put(self, track: int, frame: int, values: np.ndarray, interpolated: bool, jpeg: bytes) -> None:
        """Add a face. The frames of a track come in order; `values` holds box, landmarks and score [15]."""
        while len(self.places) <= track:
            self.places.append((array("i"), array("q")))
        self.places[track][0].append(frame)
        self.places[track][1].append(self.spool.tell())
        self.spool.write(_RECORD.pack(*values, interpolated, len(jpeg)))
        self.spool.write(jpeg)

    def get(self, place: int) -> dict[str, Any]:
        """The columns of the face at an offset in `spool`."""
        self.spool.seek(place)
        *values, interpolated, length = _RECORD.unpack(self.spool.read(_RECORD.size))
        return {
            "image": self.spool.read(length),
            "box": values[:4],
            "landmarks": values[4:14],
            "score": None if math.isnan(values[14]) else values[14],
            "interpolated": interpolated,
        }


def found_rows(item: Item, found: Found) -> Iterator[dict[str, Any]]:
    """Rows of an item, subject by subject."""
    read = len(found.times)
    frames = _frames(item, read)
    if not frames:
        return
    if frames > read > 0:
        found.problems.append(f"ends after {read} of {frames} listed frames: the others are without a face")
    found.times.extend([math.nan] * (frames - read))
    if item.box:
        named = {"": _nearest(found.tracks, np.array([item.box], np.float32))}
    else:
        named = name_subjects(group_subjects(found.tracks, read), item.subjects)
    for subject, tracks in named.items():
        places: dict[int, int] = {}
        for track in tracks:
            places.update(zip(*found.places[track.number], strict=True))
        if not places:
            found.problems.append(f"no face found of subject {subject!r}" if subject else "no face found")
        # A subject that is listed and never found has a row for every frame, like the main subject.
        first, last = (min(places), max(places)) if subject and places else (1, frames)
        for frame in range(first, last + 1):
            face = found.get(places[frame]) if frame in places else {"image": None}
            yield {"video": item.video, "subject": subject, "frame": frame, "time_s": found.times[frame - 1], **face}


LISTED_BEYOND = 5
"""Label files have up to two lines more than their video has frames; with more than this, the video breaks off."""


def _frames(item: Item, read: int) -> int:
    """Frames that get rows: those that were read, or where a video breaks off or cannot be read, those listed."""
    return item.length if not read or item.length > read + LISTED_BEYOND else read


def _nearest(tracks: Sequence[Track], box: np.ndarray) -> list[Track]:
    """The face that overlaps a box [1, 4] most, if its IoU is above 0.2."""
    overlaps = [float(iou(track.box[None], box)[0, 0]) for track in tracks]
    best = int(np.argmax(overlaps)) if overlaps else -1
    return [tracks[best]] if best >= 0 and overlaps[best] > 0.2 else []


def ready_rows(item: Item, size: int, problems: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of an item whose pictures already are faces."""
    subject = item.subjects[0] if item.subjects else ""

    def row(frame: int, time_s: float, jpeg: bytes | None) -> dict[str, Any]:
        return {"video": item.video, "subject": subject, "frame": frame, "time_s": time_s, "image": jpeg}

    if item.kind == "video" or item.frames is not None:
        for shown in read_frames(item.path, problems.append) if item.frames is None else item.frames:
            jpeg = None if shown.image is None else encode_jpeg(fit(shown.image, size))
            yield row(shown.index, shown.time_s, jpeg)
    elif item.kind == "picture":
        yield row(1, float("nan"), _ready_jpeg(item.path if item.data is None else item.data, size))
    else:
        frames = list(numbered(item, problems.append))
        if subject:  # from the first to the last frame with a crop
            seen = [number for number, _, path in frames if path is not None]
            frames = frames[min(seen) - 1 : max(seen)] if seen else frames
        for number, time_s, path in frames:
            jpeg = None
            if path is not None:
                try:
                    jpeg = _ready_jpeg(path, size)
                except UserError as error:
                    problems.append(f"{path.name} {error}")
            yield row(number, time_s, jpeg)


def _ready_jpeg(source: Path | bytes, size: int) -> bytes:
    """A cropped face as JPEG; a JPEG of the right size is passed on unchanged."""
    data = source if isinstance(source, bytes) else picture_bytes(source)
    image = read_picture(data)
    if data.startswith(b"\xff\xd8") and image.shape[:2] == (size, size) and b"Exif" not in data[:64]:
        return data
    return encode_jpeg(fit(image, size))


def numbered(item: Item, report: Callable[[str], None]) -> Iterator[tuple[int, float, Path | None]]:
    """Number, time and file of each frame of a folder, from 1 to the last; a missing frame has no file.

    If the files count from 0, `0000` is frame 1. This is reported, because labels may count as the files do.

    Raises:
        UserError: The numbers are too high for frames.
    """
    times = read_times(item.clock) if item.clock else []
    if not item.path.is_dir():
        report("does not exist: its frames are without a face")
    pictures = [path for path in children(item.path, "*") if kind_of(path) == "picture"]
    whole = [(whole_number(path.stem), path) for path in pictures]
    files = {number: path for number, path in whole if number is not None} or numbered_files(pictures)
    first = min(files, default=1)
    if not item.subjects and first - 1 > len(files):  # a cut from a longer recording, not frames without a face
        report(f"its pictures are numbered from {first}: picture {first} becomes frame 1, and so on")
        files = {number - first + 1: path for number, path in files.items()}
    if 0 in files:
        report("its pictures are numbered from 0: picture 0 becomes frame 1, and so on")
        files = {number + 1: path for number, path in files.items()}
    if max(files, default=1) > LAST_FRAME:
        raise UserError(f"its pictures are numbered up to {max(files):,}: number them 00001, 00002, ...")
    for number in range(1, _frames(item, max([len(times), *files])) + 1):
        yield number, times[number - 1] if number <= len(times) else float("nan"), files.get(number)
