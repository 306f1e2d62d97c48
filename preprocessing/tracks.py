"""Follows faces: tracks within a shot, subjects across shots."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import cv2
import numpy as np

from preprocessing.detect import Faces, iou
from preprocessing.search import STRONG, match

MAX_GAP = 8
"""Longest gap in a track, in frames, that is filled by interpolation."""
LOOK = 12 * 12 * 3
"""Length of the vector that describes a face."""


def describe(crop: np.ndarray) -> np.ndarray:
    """Describe an aligned face (uint8 [S, S, 3]) as a unit vector [LOOK]; dot products are correlations."""
    small = cv2.resize(crop, (12, 12), interpolation=cv2.INTER_AREA).astype(np.float32)
    return _unit(small - small.mean((0, 1)))


def portray(crop: np.ndarray) -> np.ndarray:
    """Describe an aligned face (uint8 [S, S, 3]) in more detail, as a unit vector, to tell people apart across shots.

    The dot product of two portraits is the mean of three similarities: local colours, local edges and overall colours.
    This is not face recognition: it recognises a person in the same clothes and light, as after a jump cut, and splits
    one person into two rather than merge two.
    """
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
    """Flatten and scale to length 1; zeros stay zeros."""
    norm = float(np.linalg.norm(values))
    return values.ravel() / norm if norm > 0 else values.ravel()


@dataclass
class Track:
    """One face followed within one shot.

    Attributes:
        number: Number of the track in its video.
        shot: Number of the shot in its video.
        first, last: Frame numbers.
        box, landmarks: At the last frame.
        best: Highest score.
        presence: Sum over frames of the face's size relative to the picture's shorter side.
        centre: Sum over frames of the face's horizontal position, 0..1.
        length: Number of frames with a face.
        look: Running mean of :func:`describe`.
        portraits: Result of :func:`portray` for the 1st, 2nd, 4th, 8th, ... face of the track.
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
        """Add the face of a frame whose picture has the given shape."""
        box = face.boxes[0]
        self.last, self.box, self.landmarks = frame, box, face.landmarks[0]
        self.best = max(self.best, float(face.scores[0]))
        self.length += 1
        self.presence += float((box[2:] - box[:2]).mean()) / min(shape[:2])
        self.centre += float(box[0] + box[2]) / 2 / shape[1]
        self.look = 0.9 * self.look + 0.1 * look
        if self.length.bit_count() == 1:
            self.portraits.append(portray(crop))


@dataclass(frozen=True)
class Seen:
    """A face assigned to a track; an interpolated one has no score, and its picture has yet to be cut."""

    track: int
    frame: int
    box: np.ndarray
    landmarks: np.ndarray
    score: float
    interpolated: bool
    crop: np.ndarray | None


class Tracker:
    """Assigns the faces of successive frames to tracks."""

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self._numbers = count()
        self._open: list[Track] = []
        self._shot = 0

    def cut(self) -> None:
        """End all tracks, because a new shot starts."""
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
            The faces with their tracks, each after the interpolated faces that fill the gap before it.
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
                track = Track(next(self._numbers), self._shot, frame, frame, box, landmarks, score, looks[j])
                self.tracks.append(track)
                self._open.append(track)
            seen += _bridge(track, frame, box, landmarks)
            track.extend(frame, shape, faces[j : j + 1], crop, looks[j])
            seen.append(Seen(track.number, frame, box, landmarks, score, False, crop))
        return seen


def _bridge(track: Track, frame: int, box: np.ndarray, landmarks: np.ndarray) -> list[Seen]:
    """Interpolate linearly between a track's last frame and this one."""
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
"""Minimum similarity of two tracks of one person in different shots."""
SAME_PLACE = 0.5
"""The same for a face that reappears where it was lost, in the same shot."""


def group_subjects(tracks: Sequence[Track], frames: int) -> list[list[Track]]:
    """Group all tracks of a video of `frames` frames by person, the most present person first.

    Tracks that share a frame are different people. Tracks that are too short or have too low a score are dropped,
    unless there are no others.
    """
    certain = [track for track in tracks if track.best >= STRONG and track.length >= min(3, frames)]
    subjects: list[list[Track]] = []
    for track in sorted(certain or tracks, key=lambda t: (-t.presence, t.number)):
        scores = [same_person(track, subject) for subject in subjects]
        if scores and max(scores) > 0:
            subjects[int(np.argmax(scores))].append(track)
        else:
            subjects.append([track])
    return sorted(subjects, key=lambda s: (-sum(t.presence for t in s), min(t.number for t in s)))


def same_person(track: Track, subject: Sequence[Track]) -> float:
    """How far a track's similarity to a subject exceeds the threshold; negative if they are different people."""
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
        names: Subjects that the data set names: "left" and "right" by position, and "" for the main subject. Only these
            are kept. If only the main subject is named, shots in which that person is not recognised use the most
            present person instead. If `names` is empty, everybody is kept: the most present person is "", the others
            are "2", "3", ...

    Returns:
        Tracks by name; a name without a person has no tracks.
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
    if "" in names:  # the main subject takes the place that the other name leaves
        places[0 if "right" in names else 1] = ""
    if len(pair) == 1:
        places = [_place_of_one(pair[0], places, names)]
    for place, subject in zip(places, pair, strict=False):
        if place in named:
            named[place] = list(subject)
    return named


def _place_of_one(subject: Sequence[Track], places: Sequence[str], names: Sequence[str]) -> str:
    """The place of the only person found: the half of the picture; in its middle third, the only name if there is one.

    `places` are what the left and the right half are called.
    """
    at = sum(track.centre for track in subject) / sum(track.length for track in subject)
    if len(names) == 1 and 1 / 3 < at < 2 / 3:
        return names[0]
    return places[int(at >= 0.5)]


def _one_person(subjects: Sequence[Sequence[Track]]) -> list[Track]:
    """The tracks of the first subject, and the most present track of every shot without that subject."""
    kept = list(subjects[0]) if subjects else []
    others = [track for subject in subjects[1:] for track in subject]
    for track in sorted(others, key=lambda t: (-t.presence, t.number)):
        if all(track.shot != other.shot for other in kept):
            kept.append(track)
    return kept
