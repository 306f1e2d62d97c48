"""One shard: its items are read, the faces of each are found, followed and aligned, and the rows written."""

from __future__ import annotations

import base64
import tempfile
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from checkpoints.artifact import write_json
from checkpoints.errors import UserError
from preprocessing.align import align, encode_jpeg
from preprocessing.detect import Detector, Faces
from preprocessing.faces import DATA, write_shard
from preprocessing.items import Group, Item
from preprocessing.pictures import read_picture
from preprocessing.rows import Found, found_rows, numbered, ready_rows
from preprocessing.search import INTERVAL, Detect, Refine, Request, ShotDetector, find_faces
from preprocessing.tables import table_pictures
from preprocessing.tracks import MAX_GAP, Tracker
from preprocessing.video import Frame, read_frames

LOG = "log"
CHUNK = 4 * INTERVAL
CHUNK_BYTES = 96 << 20
"""Frames held in memory at a time, by number and by bytes of all videos in progress."""
NO_FACE = 4
"""Thumbnails of frames without a face kept for the data sheet: of a video, and of a shard of pictures."""
AT_ONCE = 8
"""Videos of a shard in progress at the same time, whose detections share batches."""


@dataclass(frozen=True)
class Settings:
    """What decides the content of a store beside its sources.

    Attributes:
        size: Side of the aligned faces in pixels.
        crops: The sources hold faces that are aligned already.
    """

    size: Literal[112, 224] = 112
    crops: bool = False


def find_together(store: Path, groups: Sequence[Group], settings: Settings, detector: Detector) -> list[Found]:
    """Find the faces of several long videos, one per group, at the same time, so that batches fill across them."""
    store.mkdir(parents=True, exist_ok=True)
    return run_together([_find(store, group.items[0], settings.size, CHUNK_BYTES) for group in groups], detector)


def make_shard(
    store: Path, group: Group, settings: Settings, detector: Detector | None, ready: Found | None = None
) -> dict[str, Any]:
    """Read the items of a group and write their shard and its log.

    Args:
        store: The faces store; made if missing.
        group: What to read.
        settings: How.
        detector: Finds the faces; None where they are aligned already.
        ready: Of a group of one video, its faces if they have been found.

    Returns:
        The log: counts and problems. It is written after the shard, and says that the shard is finished.
    """
    sources = sorted({item.name for item in group.items})
    log: dict[str, Any] = {"digest": group.digest, "sources": sources, "items": 0, "frames": 0, "faces": 0}
    log |= {"problems": [], "no_face": []}
    store.mkdir(parents=True, exist_ok=True)
    rows = _rows(store, group, settings, detector, log, ready)
    first = next(rows, None)
    if first is not None:  # an item of which nothing can be read has no rows, and a shard without rows no file
        write_shard(store, group.name, chain([first], rows))
    else:
        (store / DATA / f"{group.name}.parquet").unlink(missing_ok=True)  # of what could be read before
    write_json(store / LOG / f"{group.name}.json", log)
    return log


def _rows(
    store: Path,
    group: Group,
    settings: Settings,
    detector: Detector | None,
    log: dict[str, Any],
    ready: Found | None,
) -> Iterator[dict[str, Any]]:
    """Rows of a group's items in order; counts and problems go into the log."""
    for items in _batched(_expand(group.items, log["problems"]), AT_ONCE):
        log["items"] += len(items)
        results: Sequence[Found | None]
        if detector is None:
            results = [None] * len(items)
        elif ready is not None:
            results = [ready]
        else:
            works = [_find(store, item, settings.size, CHUNK_BYTES // len(items)) for item in items]
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
    """The items, with the rows of a table in place of the table."""
    for item in items:
        if item.kind != "table":
            yield item
            continue
        try:
            yield from table_pictures(item)
        except UserError as error:
            problems.append({"source": item.name, "video": item.video, "problem": str(error)})


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def run_together(works: Sequence[Generator[Request, Any, Any]], detector: Detector) -> list[Any]:
    """Run generators that ask for detections, answering the requests of all of them in common batches."""
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


def _find(store: Path, item: Item, size: int, budget: int) -> Generator[Request, Any, Found]:
    """Find and follow the faces of an item."""
    spool = tempfile.SpooledTemporaryFile(max_size=1 << 20, dir=str(store))  # noqa: SIM115
    found = Found(spool)
    try:
        frames = _frames_of(item, found.problems.append)
        yield from follow(chunks(frames, found.times, budget), found, size)
    except UserError as error:
        found.problems.append(str(error))
    return found


def _frames_of(item: Item, report: Callable[[str], None]) -> Iterator[Frame]:
    if item.kind == "video":
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


def follow(parts: Iterator[list[tuple[int, np.ndarray]]], found: Found, size: int) -> Generator[Request, Any, None]:
    """Find faces chunk by chunk, give them to tracks, and put their aligned pictures into the spool."""
    shots, tracker = ShotDetector(), Tracker()
    known: Faces | None = None
    without = 0
    before: list[tuple[int, np.ndarray]] = []  # the last frames of the chunk before
    for chunk in parts:
        carried = before[-1:]
        pictures = carried + chunk
        cuts = [i for i, (_, image) in enumerate(pictures) if i >= len(carried) and shots.is_cut(image)]
        faces = yield from find_faces([image for _, image in pictures], cuts, known if carried else None)
        by_frame = dict(before + chunk)
        for i in range(len(carried), len(pictures)):
            frame, image = pictures[i]
            if i in cuts:
                tracker.cut()
            crops, usable = _crops(image, faces[i], size)
            if not crops:
                without += 1
                if without & (without - 1) == 0 and len(found.no_face) < NO_FACE:
                    found.no_face.append((frame, encode_jpeg(_thumbnail(image))))
            for seen in tracker.step(frame, image.shape, faces[i][usable], crops):
                crop = seen.crop
                if crop is None:
                    if seen.frame not in by_frame:
                        continue
                    crop = align(by_frame[seen.frame], seen.landmarks, size)
                values = np.concatenate([seen.box, seen.landmarks.ravel(), [seen.score]])
                found.put(seen.track, seen.frame, values, seen.interpolated, encode_jpeg(crop))
        known = faces[-1]
        before = pictures[-MAX_GAP:]
    found.tracks = tracker.tracks


def chunks(frames: Iterator[Frame], times: array[float], budget: int) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Decodable frames as (number, image), as many at a time as memory allows; times of all frames are noted."""
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
    import cv2

    scale = 144 / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _crops(image: np.ndarray, faces: Faces, size: int) -> tuple[list[np.ndarray], list[int]]:
    """Aligned faces, and which of the faces they are: landmarks in one point align nothing."""
    crops, usable = [], []
    for k, landmarks in enumerate(faces.landmarks):
        if np.ptp(landmarks, axis=0).max() >= 1:
            crops.append(align(image, landmarks, size))
            usable.append(k)
    return crops, usable
