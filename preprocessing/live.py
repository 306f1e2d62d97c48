"""Finds and follows the faces of a running video, frame by frame: nothing waits for a later frame."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from checkpoints.framing import Framing
from preprocessing.align import align, encode_jpeg, in_aligned
from preprocessing.detect import Detector, Faces
from preprocessing.search import INTERVAL, STRONG, ShotDetector, confirmed, joined
from preprocessing.shard import crops_of
from preprocessing.tracks import MAX_GAP, Track, Tracker, same_person

PEOPLE = 32
"""People that are remembered; after that, whoever was away longest is forgotten."""
TRACKS = 8
"""Tracks by which a person is recognised."""


@dataclass(frozen=True)
class LiveFace:
    """The face of a person in a frame.

    Attributes:
        subject: `""` for the first person seen, then `"2"`, `"3"`, ...
        box: x1, y1, x2, y2 in pixels.
        score: Confidence of the detector.
        jpeg: The aligned face.
        landmarks: Five points (x, y) in pixels of the aligned face.
    """

    subject: str
    box: np.ndarray
    score: float
    jpeg: bytes
    landmarks: np.ndarray


class LiveFaces:
    """Follows everybody in a running video.

    The whole picture is searched every `INTERVAL` frames (four times as often while nobody is there), at cuts, and when
    a certain face is lost. In between, known faces are refined where they were last seen.

    Args:
        detector: Finds faces.
        size: Side of the aligned faces in pixels.
        framing: Where their landmarks go.
    """

    def __init__(self, detector: Detector, size: Literal[112, 224], framing: Framing) -> None:
        self.detector, self.size, self.framing = detector, size, framing
        self.people: dict[str, list[Track]] = {}
        self._shots, self._tracker = ShotDetector(), Tracker()
        self._tracks: dict[int, tuple[Track, str | None]] = {}  # open ones, with their subjects
        self._known = Faces.none()
        self._frame = self._searched = self._count = 0

    def step(self, image: np.ndarray) -> list[LiveFace]:
        """The faces in the next frame, RGB, uint8 `[H, W, 3]`."""
        self._frame += 1
        cut = self._shots.is_cut(image)
        if cut:
            self._tracker.cut()
        faces = self._known = self._find(image, cut)
        crops, usable = crops_of(image, faces, partial(align, size=self.size, framing=self.framing))
        found = []
        for seen in self._tracker.step(self._frame, image.shape, faces[usable], crops):
            if seen.crop is None:  # bridges a gap, which is past
                continue
            subject = self._subject_of(seen.track)
            if subject is not None:
                points = in_aligned(seen.landmarks, self.size, self.framing)
                found.append(LiveFace(subject, seen.box, seen.score, encode_jpeg(seen.crop), points))
        self._tracks = {n: pair for n, pair in self._tracks.items() if pair[0].last >= self._frame - MAX_GAP}
        return found

    def _find(self, image: np.ndarray, cut: bool) -> Faces:
        known = self._known
        wait = INTERVAL if len(known) else INTERVAL // 4
        refined, lost = Faces.none(), cut or self._frame == 1 or self._frame - self._searched >= wait
        if len(known) and not cut:
            refined = self.detector.refine([image] * len(known), known.boxes)
            good = confirmed(known.boxes, refined)
            lost |= bool((known.scores[~good] >= STRONG).any())
            refined = refined[good]
        if not lost:
            return refined
        self._searched = self._frame
        return joined(self.detector.detect([image])[0], refined)

    def _subject_of(self, number: int) -> str | None:
        """The person that a track belongs to; None as long as its face is not certain."""
        for track in self._tracker.tracks:
            self._tracks[track.number] = (track, None)
        self._tracker.tracks.clear()  # a running video has no end
        track, subject = self._tracks[number]
        if subject is None and track.best >= STRONG:
            subject = self._recognised(track)
            self._tracks[number] = (track, subject)
        return subject

    def _recognised(self, track: Track) -> str:
        likeness = {subject: same_person(track, tracks) for subject, tracks in self.people.items()}
        subject = max(likeness, key=lambda name: likeness[name], default="")
        if likeness.get(subject, 0) <= 0:
            self._count += 1
            subject = "" if self._count == 1 else str(self._count)
        self.people[subject] = [*self.people.get(subject, []), track][-TRACKS:]
        if len(self.people) > PEOPLE:
            del self.people[min(self.people, key=lambda name: self.people[name][-1].last)]
        return subject
