"""A running video: rows as the frames come, from causal heads."""

import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from checkpoints.errors import UserError
from checkpoints.reading import need_file
from preprocessing.live import LiveFace, LiveFaces
from preprocessing.video import Frame, read_frames
from temporal.data import frame_rate
from temporal.live import HELD, LiveHead
from temporal.predict import average
from wildaffect.inference.inputs import Clock, Frames
from wildaffect.inference.models import Models
from wildaffect.inference.table import BOX, reported
from wildaffect.tasks import AUS, EXPRESSIONS, TASKS
from wildaffect.tasks.predictions import value_columns

RECENT = 33
"""Frames whose times say how fast the video runs."""
ABSENT = 512
"""Frames after which a person who is away is predicted as if never seen."""

Row = dict[str, Any]
"""Column -> value, as in a table (`wildaffect.inference.table.COLUMNS`); None where nothing is predicted."""


def live_frames(source: Any, fps: float | None = None, times: Iterable[float] | None = None) -> Iterator[Frame]:
    """Frames of a video file, or pictures with their times; without `fps` and `times`, the times of their arrival."""
    if isinstance(source, str | Path):
        if fps is not None or times is not None:
            raise UserError(f"{source} has its own times: fps= and times= are for frames")
        need_file(Path(source), "pass a video, or frames")
        return _frames_of(Path(source))
    clock = Clock(fps, times)
    return iter(Frames(source, clock if clock else Clock(times=_arrivals())))


def _frames_of(path: Path) -> Iterator[Frame]:
    """The frames of a video file; what is wrong with it is said with its name."""
    try:
        yield from read_frames(path, lambda problem: warnings.warn(f"{path} {problem}", stacklevel=2))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _arrivals() -> Iterator[float]:
    start = last = time.monotonic()
    yield 0.0
    while True:
        last = max(time.monotonic(), last + 1e-6)
        yield last - start


def camera_pictures(number: int) -> Iterator[np.ndarray]:
    """The pictures of a camera as RGB, uint8 `[H, W, 3]`.

    Raises:
        UserError: There is no such camera.
    """
    camera = cv2.VideoCapture(number)
    try:
        if not camera.isOpened():
            raise UserError(f"camera {number} cannot be opened: check that it is connected and not in use")
        while (read := camera.read())[0]:
            yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
    finally:
        camera.release()


def newest(pictures: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The newest picture at each time of asking: those that came meanwhile are dropped, so that no delay builds up."""
    waiting: deque[np.ndarray] = deque(maxlen=1)
    errors: list[BaseException] = []
    came, closed = threading.Condition(), threading.Event()

    def read() -> None:
        try:
            for picture in pictures:
                with came:
                    waiting.append(picture)
                    came.notify()
                if closed.is_set():
                    return
        except UserError as error:
            errors.append(error)
        finally:
            closed.set()
            with came:
                came.notify()

    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            with came:
                came.wait_for(lambda: waiting or closed.is_set())
                picture = waiting.pop() if waiting else None
            if picture is None:
                break
            yield picture
    finally:
        closed.set()
    if errors:
        raise errors[0]


class Person:
    """One person's heads, and the values so far."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self.heads = [LiveHead(head) for head in models.heads]
        self.past: dict[str, deque[np.ndarray]] = {task.name: deque(maxlen=HELD) for task in models.tasks}
        self.absent = 0

    def skip(self) -> None:
        """Go on by a frame without this person."""
        self.absent += 1
        for head in self.heads:
            head.skip()
        for values in self.past.values():
            values.append(values[-1])

    def step(self, features: dict[str, np.ndarray], rate: float) -> Row:
        """The columns of the next frame from its features, `[D]` by feature id."""
        self.absent = 0
        every = []
        for head in self.heads:
            inputs = head.head.inputs
            parts = [features.get(item.feature_id, np.zeros(item.dim, np.float16)) for item in inputs]  # no sound
            every.append(head.step(np.concatenate(parts), rate))
        row: Row = {}
        for name, values in average(self.models.heads, every).items():
            task = TASKS[name]
            self.past[name].append(values)
            row |= {column: round(float(value), 5) for column, value in zip(value_columns(task), values, strict=True)}
            decoded = self.models.decode(task, np.stack(self.past[name]), rate)[-1]
            if name == "expr":
                row["expression"] = EXPRESSIONS[int(decoded[0])]
            elif name == "au":
                row |= {au: int(value) for au, value in zip(AUS, decoded, strict=True)}
        return row


class Live:
    """Predicts a running video.

    Args:
        predictor: A :class:`wildaffect.inference.predictor.Predictor`.
        faces: Follows the faces.

    Raises:
        UserError: A head looks ahead, or expressions are to be adapted to the clip.
    """

    def __init__(self, predictor: Any, faces: LiveFaces) -> None:
        if predictor.models.adapt != "none":
            raise UserError(f"adapt={predictor.models.adapt!r} needs the whole clip: leave it out for a running video")
        self.predictor, self.faces = predictor, faces
        self.withheld = predictor.models.withheld
        self.people: dict[str, Person] = {}
        self.times: deque[float] = deque(maxlen=RECENT)
        Person(predictor.models)  # refuses heads that look ahead before the first frame

    def rows(self, frame: Frame) -> list[Row]:
        """The rows of the next frame: one for each person in it, the first person's in any case."""
        found = [] if frame.image is None else self.faces.step(frame.image)
        self.times.append(frame.time_s)
        rate = frame_rate(np.array(self.times))
        embedded = self.predictor.embed([(face.jpeg, face.landmarks) for face in found]) if found else {}
        present: dict[str, Row] = {}
        for number, face in enumerate(found):
            if face.subject not in self.people:
                self.people[face.subject] = Person(self.predictor.models)
            values = self.people[face.subject].step({name: item[number] for name, item in embedded.items()}, rate)
            present[face.subject] = self._row(face.subject, frame, face) | values
        for subject in self.people.keys() - present.keys():
            self.people[subject].skip()
        self.people = {name: person for name, person in self.people.items() if person.absent < ABSENT}
        present.setdefault("", self._row("", frame, None))
        ordered = [present[subject] for subject in sorted(present, key=lambda name: int(name or 1))]
        return [{name: row[name] for name in reported(row, self.withheld)} for row in ordered]

    def _row(self, subject: str, frame: Frame, face: LiveFace | None) -> Row:
        time_s = round(frame.time_s, 6) if np.isfinite(frame.time_s) else None
        row: Row = {"subject": subject, "frame": frame.index, "time_s": time_s, "face": face is not None}
        row["interpolated"] = False
        box = [None] * 4 if face is None else [round(float(value), 1) for value in face.box]
        row |= dict(zip(BOX, box, strict=True)) | {"score": None if face is None else round(face.score, 4)}
        for task in self.predictor.models.tasks:
            row |= dict.fromkeys(value_columns(task))
            row |= dict.fromkeys({"expr": ["expression"], "au": AUS}.get(task.name, []))
        return row
