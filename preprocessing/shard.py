"""Makes one shard: reads its items, finds, tracks and aligns their faces, and writes the rows."""

from __future__ import annotations

import base64
import io
import tempfile
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, TypedDict

import cv2
import numpy as np

from checkpoints.artifact import read_sealed, write_sealed
from checkpoints.content import content_hashes
from checkpoints.errors import UserError
from checkpoints.forms import Count
from checkpoints.framing import OURS, Framing
from preprocessing.align import align, encode_jpeg
from preprocessing.close_up import find_in_pictures
from preprocessing.detect import Detector, Faces
from preprocessing.faces import DATA, Problem
from preprocessing.items import Group, Item
from preprocessing.pictures import read_picture
from preprocessing.read_ahead import read_ahead
from preprocessing.rows import Found, found_rows, numbered, ready_rows
from preprocessing.search import INTERVAL, Detect, Refine, Request, ShotDetector, find_faces
from preprocessing.tables import table_pictures
from preprocessing.tracks import MAX_GAP, Tracker
from preprocessing.video import Frame, read_frames
from preprocessing.write_faces import write_shard

LOG = "log"
CHUNK = 4 * INTERVAL
CHUNK_BYTES = 96 << 20
"""Limits on the frames in memory: their number, and the bytes of all videos in progress. As many are read ahead."""
NO_FACE = 4
"""Thumbnails of frames without a face to keep for the data sheet, per video or per shard of pictures."""
Find = Callable[[Sequence[np.ndarray], Sequence[int], Faces | None], Generator[Request, Any, list[Faces]]]
AT_ONCE = 8
"""Videos of a shard that are processed together, so that their detections share batches."""


class Thumbnail(TypedDict):
    """A frame without a face."""

    label: str
    jpeg: str


class Log(TypedDict):
    """What is known of a shard that is finished: counts, problems, and the hash of its file ('' if it has no row)."""

    digest: str
    hash: str
    sources: list[str]
    items: Count
    frames: Count
    faces: Count
    problems: list[Problem]
    no_face: list[Thumbnail]


def read_log(store: Path, name: str) -> Log:
    """The log of a shard.

    Raises:
        UserError: It is missing or damaged.
    """
    return read_sealed(store / LOG / f"{name}.json", Log)


@dataclass(frozen=True)
class Settings:
    """What determines the content of a store, apart from its sources.

    Attributes:
        size: Side of the aligned faces in pixels.
        crops: The sources hold faces that are already aligned.
        framing: How faces are aligned. With `crops`, how the sources are framed, or `TO_MEASURE`.
    """

    size: Literal[112, 224] = 112
    crops: bool = False
    framing: Framing = OURS

    def as_dict(self) -> dict[str, Any]:
        """What determines the rows. The framing of ready crops does not: it is only recorded."""
        found = {"size": self.size, "crops": self.crops}
        return found if self.crops else found | {"framing": self.framing.as_dict()}


def find_together(store: Path, groups: Sequence[Group], settings: Settings, detector: Detector) -> list[Found]:
    """Find the faces of several long videos, one per group, at the same time, so that they fill batches together."""
    store.mkdir(parents=True, exist_ok=True)
    return run_together([_find(store, group.items[0], settings, CHUNK_BYTES) for group in groups], detector)


def make_shard(
    store: Path,
    group: Group,
    settings: Settings,
    detector: Detector | None,
    ready: Found | None = None,
    searched: Callable[[int], None] = lambda frames: None,
) -> dict[str, Any]:
    """Read the items of a group and write their shard and its log into a store, which is created if missing.

    `detector` is None if the faces are already aligned. For a group of one video, `ready` holds its faces if they have
    already been found. `searched` is called with the number of frames each time that some have been searched.

    Returns:
        The log: counts and problems. It is written after the shard and means that the shard is finished.
    """
    log = _new_log(group)
    _write(store, group, log, _rows(store, group, settings, detector, log, ready, searched))
    return log


def give_up(store: Path, group: Group, problem: str) -> dict[str, Any]:
    """Like :func:`make_shard`, for a group that cannot be read: only what is listed has rows, without faces."""
    log = _new_log(group)
    log["items"] = len(group.items)
    rows: list[dict[str, Any]] = []
    for item in group.items:
        found = Found(io.BytesIO(), problems=[problem])
        rows += found_rows(item, found)
        log["frames"] += len(found.times)
        log["problems"] += [{"source": item.name, "video": item.video, "problem": line} for line in found.problems]
    _write(store, group, log, iter(rows))
    return log


def _new_log(group: Group) -> dict[str, Any]:
    sources = sorted({item.name for item in group.items})
    counts = {"items": 0, "frames": 0, "faces": 0, "hash": ""}
    return {"digest": group.digest, "sources": sources, **counts, "problems": [], "no_face": []}


def _write(store: Path, group: Group, log: dict[str, Any], rows: Iterator[dict[str, Any]]) -> None:
    """Write the rows, which add to the log as they are made, and then the log."""
    store.mkdir(parents=True, exist_ok=True)
    first = next(rows, None)
    if first is not None:  # nothing readable, no rows; no rows, no file
        written = write_shard(store, group.name, chain([first], rows))
        log["hash"] = content_hashes(written.parent, [written.name], again=True)[written.name]
    else:
        (store / DATA / f"{group.name}.parquet").unlink(missing_ok=True)  # from an earlier run
    write_sealed(store / LOG / f"{group.name}.json", log)


def _rows(
    store: Path,
    group: Group,
    settings: Settings,
    detector: Detector | None,
    log: dict[str, Any],
    ready: Found | None,
    searched: Callable[[int], None],
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a group's items in order, and add counts and problems to the log."""
    for items in _batched(_expand(group.items, log["problems"]), AT_ONCE):
        log["items"] += len(items)
        results: Sequence[Found | None] = [ready] * len(items)
        if detector is not None and ready is None:
            works = [_find(store, item, settings, CHUNK_BYTES // len(items), searched) for item in items]
            results = run_together(works, detector)
        for item, found in zip(items, results, strict=True):
            problems: list[str] = [] if found is None else found.problems
            frames = 0
            try:
                rows = ready_rows(item, settings.size, problems) if found is None else found_rows(item, found)
                for row in rows:
                    frames = max(frames, row["frame"])
                    log["faces"] += row["image"] is not None
                    yield row
            except UserError as error:
                problems.append(str(error))
            if found is not None:
                found.spool.close()
                room = NO_FACE if item.kind != "picture" else NO_FACE - len(log["no_face"])
                for frame, jpeg in found.no_face[: max(room, 0)]:
                    label = f"{item.video} {frame}"
                    log["no_face"].append({"label": label, "jpeg": base64.b64encode(jpeg).decode()})
            log["frames"] += frames
            log["problems"] += [{"source": item.name, "video": item.video, "problem": line} for line in problems]


def _expand(items: Iterable[Item], problems: list[dict[str, str]]) -> Iterator[Item]:
    """Yield the items, with each table replaced by its pictures."""
    for item in items:
        if item.kind != "table":
            yield item
            continue
        try:
            yield from table_pictures(item)
        except UserError as error:
            problems.append({"source": item.name, "video": item.video, "problem": str(error)})


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of at most `size`; `itertools.batched` needs Python 3.12."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def run_together(works: Sequence[Generator[Request, Any, Any]], detector: Detector) -> list[Any]:
    """Run generators that request detections, and answer all their requests in shared batches."""
    results: list[Any] = [None] * len(works)
    waiting: dict[int, Request] = {}

    def advance(index: int, answer: Any) -> None:
        try:
            waiting[index] = works[index].send(answer)
        except StopIteration as stop:
            results[index] = stop.value

    for index in range(len(works)):
        advance(index, None)
    while waiting:
        asked, waiting = waiting, {}
        searches = {i: request for i, request in asked.items() if isinstance(request, Detect)}
        if searches:
            answers = iter(detector.detect([image for request in searches.values() for image in request.images]))
            for index, request in searches.items():
                advance(index, [next(answers) for _ in request.images])
        refinements = {i: request for i, request in asked.items() if isinstance(request, Refine)}
        if refinements:
            images = [image for request in refinements.values() for image in request.images]
            faces = detector.refine(images, np.concatenate([request.boxes for request in refinements.values()]))
            start = 0
            for index, refinement in refinements.items():
                advance(index, faces[start : start + len(refinement.images)])
                start += len(refinement.images)
    return results


def _find(
    store: Path, item: Item, settings: Settings, budget: int, searched: Callable[[int], None] = lambda frames: None
) -> Generator[Request, Any, Found]:
    """Find and track the faces of an item."""
    spool = tempfile.SpooledTemporaryFile(max_size=1 << 20, dir=str(store))  # noqa: SIM115
    found = Found(spool)
    try:
        frames = frames_of(item, found.problems.append)
        find = find_in_pictures if item.kind == "picture" else find_faces
        parts = chunks(frames, found.times, budget)
        if item.kind == "video" and item.frames is None:
            parts = read_ahead(parts, 1)
        yield from follow(parts, found, settings, find, searched)
    except UserError as error:
        found.problems.append(str(error))
    return found


def frames_of(item: Item, report: Callable[[str], None]) -> Iterator[Frame]:
    """Yield the frames of a video or of a folder of frames, or the one picture."""
    if item.frames is not None:
        yield from item.frames
    elif item.kind == "video":
        yield from read_frames(item.path, report)
    elif item.kind == "picture":
        yield Frame(1, float("nan"), read_picture(item.path if item.data is None else item.data))
    else:
        for number, time_s, path in numbered(item, report):
            image = None
            if path is not None:
                try:
                    image = read_picture(path)
                except UserError as error:
                    report(f"{path.name} {error}")
            yield Frame(number, time_s, image)


def follow(
    parts: Iterator[list[tuple[int, np.ndarray]]],
    found: Found,
    settings: Settings,
    find: Find = find_faces,
    searched: Callable[[int], None] = lambda frames: None,
) -> Generator[Request, Any, None]:
    """Find faces chunk by chunk, assign them to tracks, and write the aligned faces to the spool."""
    shots, tracker = ShotDetector(), Tracker()
    aligned = partial(align, size=settings.size, framing=settings.framing)
    known: Faces | None = None
    without = 0
    before: list[tuple[int, np.ndarray]] = []  # the last frames of the previous chunk
    for chunk in parts:
        carried = before[-1:]
        pictures = carried + chunk
        cuts = [i for i, (_, image) in enumerate(pictures) if i >= len(carried) and shots.is_cut(image)]
        faces = yield from find([image for _, image in pictures], cuts, known if carried else None)
        by_frame = dict(before + chunk)
        for i in range(len(carried), len(pictures)):
            frame, image = pictures[i]
            if i in cuts:
                tracker.cut()
            crops, usable = crops_of(image, faces[i], aligned)
            if not crops:
                without += 1
                if without.bit_count() == 1 and len(found.no_face) < NO_FACE:  # the 1st, 2nd, 4th, 8th, ...
                    found.no_face.append((frame, encode_jpeg(_thumbnail(image))))
            for seen in tracker.step(frame, image.shape, faces[i][usable], crops):
                crop = seen.crop
                if crop is None:
                    if seen.frame not in by_frame:
                        continue
                    crop = aligned(by_frame[seen.frame], seen.landmarks)
                values = np.concatenate([seen.box, seen.landmarks.ravel(), [seen.score]])
                found.put(seen.track, seen.frame, values, seen.interpolated, encode_jpeg(crop))
        searched(len(chunk))
        known = faces[-1]
        before = pictures[-MAX_GAP:]
    found.tracks = tracker.tracks


def chunks(frames: Iterator[Frame], times: array[float], budget: int) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Yield readable frames as (number, image) in chunks that fit in memory, and append the time of every frame."""
    chunk: list[tuple[int, np.ndarray]] = []
    for frame in frames:
        times.append(frame.time_s)
        if frame.image is None:
            continue
        chunk.append((frame.index, frame.image))
        limit = min(CHUNK, max(INTERVAL // 2, budget // frame.image.nbytes // INTERVAL * INTERVAL))
        if len(chunk) >= limit:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """Scale a picture so that its longer side has 144 pixels."""
    scale = 144 / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def crops_of(
    image: np.ndarray, faces: Faces, aligned: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> tuple[list[np.ndarray], list[int]]:
    """Aligned faces and their indices; faces whose landmarks coincide cannot be aligned."""
    crops, usable = [], []
    for k, landmarks in enumerate(faces.landmarks):
        if np.ptp(landmarks, axis=0).max() >= 1:
            crops.append(aligned(image, landmarks))
            usable.append(k)
    return crops, usable
