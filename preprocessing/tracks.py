"""Which face is whose: tracks within a shot, subjects across shots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from preprocessing.detect import Faces, iou
from preprocessing.search import STRONG, match

MAX_GAP = 8
"""Frames without the face that are bridged by interpolation."""
LOOK = 12 * 12 * 3
"""Length of the vector that describes what a face looks like."""


def describe(crop: np.ndarray) -> np.ndarray:
    """A quick look at an aligned face (uint8 [S, S, 3]): `LOOK` numbers of length 1; dot products are correlations."""
    import cv2

    small = cv2.resize(crop, (12, 12), interpolation=cv2.INTER_AREA).astype(np.float32)
    return _unit(small - small.mean((0, 1)))


def portray(crop: np.ndarray) -> np.ndarray:
    """A closer look, for telling people apart across shots: colours in place, edges in place, and colours overall.

    The dot product of two portraits is the mean of three likenesses. It is no face recognition: it knows a person in
    the same clothes and light again, as after a jump cut, and rather takes one person for two than two for one.

    Args:
        crop: Aligned face, uint8 [S, S, 3].

    Returns:
        Vector of length 1.
    """
    import cv2

    side = crop.shape[0]
    inner = crop[side // 10 : side - side // 10, side // 10 : side - side // 10]
    grey = cv2.cvtColor(cv2.resize(inner, (64, 64), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    across, down = (cv2.Sobel(grey, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
    strength = np.hypot(across, down)
    direction = (np.arctan2(down, across) % np.pi * (8 / np.pi)).astype(np.int64).clip(0, 7)
    edges = np.stack(
        [cv2.resize(strength * (direction == k), (8, 8), interpolation=cv2.INTER_AREA) for k in range(8)], axis=2
    )
    edges /= np.linalg.norm(edges, axis=2, keepdims=True) + 5

    lab = cv2.cvtColor(cv2.resize(crop, (28, 28), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB)
    colours = np.histogramdd(lab.reshape(-1, 3), bins=(6, 12, 12), range=((0, 256), (96, 160), (96, 160)))[0]
    parts = (describe(crop), _unit(edges - edges.mean()), _unit(np.sqrt(colours).astype(np.float32)))
    return np.concatenate(parts) / np.sqrt(np.float32(len(parts)))


def _unit(values: np.ndarray) -> np.ndarray:
    norm = float(np.linalg.norm(values))
    return values.ravel() / norm if norm > 0 else values.ravel()


@dataclass
class Track:
    """One face followed within one shot.

    Attributes:
        number: Counts the tracks of a video.
        shot: Counts the shots of a video.
        first, last: Frame numbers.
        box, landmarks: At the last frame.
        best: Highest score.
        presence: Sum over frames of the face's size as a part of the picture's shorter side.
        centre: Sum over frames of the face's horizontal place, 0..1.
        length: Number of frames with a face.
        look: Running mean of the quick looks.
        portraits: Closer looks at the frames 1, 2, 4, 8, ... of the track.
    """

    number: int
    shot: int
    first: int
    last: int
    box: np.ndarray
    landmarks: np.ndarray
    best: float
    look: np.ndarray
    presence: float = 0.0
    centre: float = 0.0
    length: int = 0
    portraits: list[np.ndarray] = field(default_factory=list)

    def extend(self, frame: int, shape: tuple[int, ...], face: Faces, crop: np.ndarray, look: np.ndarray) -> None:
        """Add the one face of a frame whose picture has the given shape."""
        box = face.boxes[0]
        self.last, self.box, self.landmarks = frame, box, face.landmarks[0]
        self.best = max(self.best, float(face.scores[0]))
        self.length += 1
        self.presence += float((box[2:] - box[:2]).mean()) / min(shape[:2])
        self.centre += float(box[0] + box[2]) / 2 / shape[1]
        self.look = 0.9 * self.look + 0.1 * look
        if self.length & (self.length - 1) == 0:
            self.portraits.append(portray(crop))


@dataclass(frozen=True)
class Seen:
    """A face given to a track; a bridged one has no score, and its picture is still to be cut."""

    track: int
    frame: int
    box: np.ndarray
    landmarks: np.ndarray
    score: float
    interpolated: bool
    crop: np.ndarray | None


class Tracker:
    """Gives the faces of successive frames to tracks."""

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self._open: list[Track] = []
        self._shot = 0

    def cut(self) -> None:
        """End all tracks: a new shot begins."""
        self._open = []
        self._shot += 1

    def step(self, frame: int, shape: tuple[int, ...], faces: Faces, crops: Sequence[np.ndarray]) -> list[Seen]:
        """Continue the tracks with the faces of a frame.

        Args:
            frame: Its number; frames come in order, some may be missing.
            shape: Height and width of the picture.
            faces: N faces.
            crops: The N aligned faces.

        Returns:
            The faces with their tracks, and the faces of bridged frames before this one.
        """
        self._open = [track for track in self._open if frame - track.last <= MAX_GAP + 1]
        looks = np.array([describe(crop) for crop in crops], np.float32).reshape(len(crops), LOOK)
        boxes = np.array([track.box for track in self._open], np.float32).reshape(-1, 4)
        likeness = np.array([track.look for track in self._open], np.float32).reshape(-1, LOOK) @ looks.T
        pairs = {j: self._open[i] for i, j in match(boxes, faces.boxes, likeness)}
        seen: list[Seen] = []
        for j, crop in enumerate(crops):
            box, landmarks, score = faces.boxes[j], faces.landmarks[j], float(faces.scores[j])
            track = pairs.get(j)
            if track is None:
                track = Track(len(self.tracks), self._shot, frame, frame, box, landmarks, score, looks[j])
                self.tracks.append(track)
                self._open.append(track)
            seen += _bridge(track, frame, box, landmarks)
            track.extend(frame, shape, faces[j : j + 1], crop, looks[j])
            seen.append(Seen(track.number, frame, box, landmarks, score, False, crop))
        return seen


def _bridge(track: Track, frame: int, box: np.ndarray, landmarks: np.ndarray) -> list[Seen]:
    """Faces on the straight way from a track's last frame to this one."""
    bridged = []
    for between in range(track.last + 1, frame):
        part = (between - track.last) / (frame - track.last)
        at_box, at_landmarks = (
            ((1 - part) * old + part * new).astype(np.float32)
            for old, new in ((track.box, box), (track.landmarks, landmarks))
        )
        bridged.append(Seen(track.number, between, at_box, at_landmarks, math.nan, True, None))
    return bridged


SAME_PERSON = 0.68
"""Least likeness of two tracks of one person in different shots."""
SAME_PLACE = 0.5
"""The same for a face that comes back where it was lost, in the same shot."""


def group_subjects(tracks: Sequence[Track], frames: int) -> list[list[Track]]:
    """Join the tracks of one person of a video of so many frames, the most present person first.

    Tracks that share a frame are different people. Tracks too short or too uncertain to be a person are left out,
    unless there is nothing else.
    """
    certain = [track for track in tracks if track.best >= STRONG and track.length >= min(3, frames)]
    subjects: list[list[Track]] = []
    for track in sorted(certain or tracks, key=lambda t: (-t.presence, t.number)):
        scores = [_same_person(track, subject) for subject in subjects]
        if scores and max(scores) > 0:
            subjects[int(np.argmax(scores))].append(track)
        else:
            subjects.append([track])
    return sorted(subjects, key=lambda s: (-sum(t.presence for t in s), min(t.number for t in s)))


def _same_person(track: Track, subject: Sequence[Track]) -> float:
    """How far a track's likeness with a subject is above the threshold; negative if they cannot be one person."""
    if any(track.first <= other.last and other.first <= track.last for other in subject):
        return -1.0
    best = -1.0
    for other in subject:
        likeness = float((np.array(track.portraits) @ np.array(other.portraits).T).max())
        place = track.shot == other.shot and iou(track.box[None], other.box[None])[0, 0] > 0.2
        best = max(best, likeness - (SAME_PLACE if place else SAME_PERSON))
    return best


def name_subjects(subjects: Sequence[Sequence[Track]], names: Sequence[str] = ()) -> dict[str, list[Track]]:
    """Name the people of a video.

    Args:
        subjects: From :func:`group_subjects`.
        names: Subjects that a data set names: "left" and "right" by position, "" (main subject) otherwise. Nobody else
            is kept then, and where it names only the main subject, shots in which that person is not recognised show
            their most present one. Empty: everybody is kept; the most present person is "", the others "2", "3", ...

    Returns:
        Tracks by name; a name without a person has none.
    """
    if not names:
        return {"": [], **{"" if k == 0 else str(k + 1): list(subject) for k, subject in enumerate(subjects)}}
    named: dict[str, list[Track]] = {name: [] for name in names}
    if tuple(names) == ("",):
        named[""] = _one_person(subjects)
        return named
    # The two most present people, from left to right.
    pair = sorted(subjects[:2], key=lambda s: sum(t.centre for t in s) / sum(t.length for t in s))
    places = ["left", "right"]
    if "" in names:  # the main subject is the one of the two that the other name does not place
        places[0 if "right" in names else 1] = ""
    for place, subject in zip(places, pair, strict=False):
        if place in named:
            named[place] = list(subject)
    return named


def _one_person(subjects: Sequence[Sequence[Track]]) -> list[Track]:
    """The tracks of the first subject, and the most present ones of the shots without that."""
    kept = list(subjects[0]) if subjects else []
    others = [track for subject in subjects[1:] for track in subject]
    for track in sorted(others, key=lambda t: (-t.presence, t.number)):
        if all(track.shot != other.shot for other in kept):
            kept.append(track)
    return kept
