"""Films synthetic people frame by frame: background, light, head motion, occlusion, blur and noise."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from synthwild.people import Action, Array, Identity, Image, Landmarks, Pose
from synthwild.process import DRAWN, Course, smooth_noise

Draw = Callable[[Image, Action, Pose], Landmarks]
"""Draws one person's face onto a BGR canvas in place and returns its landmarks."""


@dataclass(frozen=True)
class Actor:
    """One person in front of the camera: who it is, how that is drawn, and what the person does."""

    who: Identity
    draw: Draw
    course: Course


@dataclass(frozen=True)
class Look:
    """How difficult a video is; the defaults come from measurements (benchmarks/synthwild_difficulty.py)."""

    occlusions: float = 0.04  # occlusions started per frame and actor
    blurs: float = 0.02  # blurred episodes started per frame
    yaw: float = 0.24
    pitch: float = 0.11
    roll: float = 0.10


def background(rng: np.random.Generator, width: int, height: int) -> Image:
    """A room ``[H, W, 3]``: soft colours and a few out-of-focus objects."""
    base = rng.uniform(50, 190) + rng.normal(0, 18, 3)
    coarse = np.clip(base + rng.normal(0, 16, (5, 6, 3)) + rng.normal(0, 14, (5, 6, 1)), 0, 255).astype(np.uint8)
    room = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(int(rng.integers(1, 6))):
        colour = np.clip(base + rng.normal(0, 40) + rng.normal(0, 26, 3), 0, 255).tolist()
        x, y = int(rng.integers(width)), int(rng.integers(height))
        if rng.random() < 0.6:
            cv2.rectangle(room, (x, y), (x + int(rng.integers(10, 70)), y + int(rng.integers(10, 90))), colour, -1)
        else:
            cv2.circle(room, (x, y), int(rng.integers(5, 30)), colour, -1)
    size = int(rng.integers(1, 5)) * 2 + 1
    return np.asarray(cv2.blur(room, (size, size)), np.uint8)


def light_map(rng: np.random.Generator, width: int, height: int) -> Image:
    """Directional tinted light ``[H, W, 3]``; 128 leaves a pixel unchanged."""
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.38)
    y, x = np.mgrid[0:height, 0:width]
    ramp = 1 + strength * (np.cos(angle) * (x / width * 2 - 1) + np.sin(angle) * (y / height * 2 - 1))
    warmth = rng.normal(0.01, 0.035)
    tint = np.array([1 - warmth, 1, 1 + warmth]) * rng.uniform(0.70, 1.02)
    return np.clip(128 * ramp[..., None] * tint, 20, 250).astype(np.uint8)


def poses(
    rng: np.random.Generator, length: int, look: Look, centre: tuple[float, float], scale: float, pace: int
) -> list[Pose]:
    """Head motion over ``length`` frames around ``centre``; ``pace`` is the number of frames per movement."""
    angles = smooth_noise(rng, length, pace, 3) * [look.yaw, look.pitch, look.roll]
    angles = np.clip(angles + rng.normal(0, 0.4, 3) * [look.yaw, look.pitch, look.roll], -0.6, 0.6)
    shift = smooth_noise(rng, length, 2 * pace, 2) * 0.10 * scale + rng.normal(0, 0.06, 2) * scale
    size = scale * rng.uniform(0.90, 1.10) * (1 + 0.03 * smooth_noise(rng, length, 2 * pace)[:, 0])
    return [
        Pose(centre[0] + shift[t, 0], centre[1] + shift[t, 1], float(size[t]), *(float(a) for a in angles[t]))
        for t in range(length)
    ]


def leave(track: list[Pose], start: int, end: int, distance: float) -> list[Pose]:
    """Let the head leave the frame from ``start`` to ``end`` and come back."""
    out = list(track)
    for t in range(max(start - 5, 0), min(end + 5, len(track))):
        away = distance * min(1.0, (t - start + 5) / 5, (end + 5 - t) / 5)
        out[t] = replace(track[t], x=track[t].x + away)
    return out


@dataclass(frozen=True)
class Occlusion:
    """An object in front of a face for a few frames; the offset is in face units."""

    start: int
    end: int
    kind: str
    offset: tuple[float, float]
    angle: float
    colour: Array

    def draw(self, canvas: Image, pose: Pose) -> None:
        """Draw the object relative to the face."""
        s = pose.scale
        centre = np.array([pose.x, pose.y]) + np.array(self.offset) * s
        along = np.array([np.cos(self.angle), np.sin(self.angle)])
        across = np.array([-along[1], along[0]])

        def put(points: Array, colour: Array) -> None:
            pixels = centre + points[:, :1] * s * along + points[:, 1:] * s * across
            cv2.fillPoly(canvas, [np.rint(pixels * 16).astype(np.int32)], colour.tolist(), cv2.LINE_AA, 4)

        if self.kind == "hand":
            for k in range(4):
                y = -0.24 + 0.16 * k
                finger = np.array([[-0.55, y], [0.3, y], [0.3, y + 0.13], [-0.55, y + 0.13]])
                put(finger, self.colour * (0.92 + 0.03 * k))
            palm = np.array([[0.2, -0.3], [0.75, -0.34], [1.6, -0.2], [1.6, 0.35], [0.75, 0.42], [0.2, 0.42]])
            put(palm, self.colour * 0.95)
        elif self.kind == "cup":
            put(np.array([[-0.34, -0.3], [0.34, -0.3], [0.28, 0.5], [-0.28, 0.5]]), self.colour)
            put(np.array([[-0.34, -0.3], [0.34, -0.3], [0.33, -0.2], [-0.33, -0.2]]), self.colour * 0.7)
        else:  # a bar: a microphone stand, a strand of hair, a passing arm
            put(np.array([[-3, -0.17], [3, -0.17], [3, 0.17], [-3, 0.17]]), self.colour)


def occlusions(rng: np.random.Generator, length: int, look: Look, skin: Array) -> list[Occlusion]:
    """Draw when and how a face is partly hidden."""
    found = []
    for start in np.flatnonzero(rng.random(length) < look.occlusions):
        end = int(start + rng.integers(2, 6))
        kind = str(rng.choice(["hand", "hand", "cup", "bar"]))
        low = rng.random() < 0.65 or kind == "cup"
        offset = (rng.normal(0, 0.15), (0.85 if low else -0.12) + rng.normal(0, 0.12))
        angle = rng.uniform(-0.5, 0.5) + (np.pi if rng.random() < 0.5 else 0.0)
        if kind == "cup":
            angle = rng.normal(0, 0.12)
        colour = skin * rng.uniform(0.85, 1.0) if kind == "hand" else rng.uniform(15, 230, 3)
        found.append(Occlusion(int(start), end, kind, offset, angle, colour))
    return found


class Lens:
    """What the camera adds: light, blur and noise, drawn once per video."""

    def __init__(self, rng: np.random.Generator, width: int, height: int, length: int, look: Look):
        self.rng, self.size = rng, (width, height)
        self.light = light_map(rng, width, height)
        self.gain = 1 + 0.05 * smooth_noise(rng, length, 10)[:, 0]
        self.blur = np.full(length, max(rng.uniform(-0.6, 0.9), 0.0))
        for start in np.flatnonzero(rng.random(length) < look.blurs):
            self.blur[start : start + int(rng.integers(1, 5))] = rng.uniform(1.2, 2.6)
        grain = rng.normal(0, rng.uniform(1.0, 6.0), (height + 32, width + 32, 3))
        self.plus = np.clip(grain, 0, 60).astype(np.uint8)
        self.minus = np.clip(-grain, 0, 60).astype(np.uint8)

    def expose(self, canvas: Image, t: int) -> Image:
        """The frame as the camera sees it."""
        out = cv2.multiply(canvas, self.light, scale=float(self.gain[t]) / 128)
        if self.blur[t] > 0.3:
            out = cv2.GaussianBlur(out, (0, 0), float(self.blur[t]) * self.size[1] / 160)
        x, y = self.rng.integers(32, size=2)
        window = (slice(y, y + self.size[1]), slice(x, x + self.size[0]))
        return np.asarray(cv2.subtract(cv2.add(out, self.plus[window]), self.minus[window]), np.uint8)


def film(
    rng: np.random.Generator,
    actors: list[Actor],
    size: tuple[int, int],
    length: int,
    away: tuple[int, int] | None = None,
    pace: int = 14,
) -> Iterator[tuple[Image, list[Landmarks | None]]]:
    """Film a video.

    Args:
        rng: random numbers of the video.
        actors: one or two people, from left to right.
        size: (width, height) of the frame.
        length: number of frames; the actors' courses may be longer.
        away: frames (start, end) in which the first actor is out of the frame.
        pace: number of frames per head movement.

    Yields:
        For every frame, the picture ``[H, W, 3]`` (BGR) and each actor's landmarks, or None if the face is outside.
    """
    width, height = size
    look = Look()
    room = background(rng, width, height)
    scale = height * (0.245 if len(actors) == 1 else 0.215)
    tracks, hidden = [], []
    for k, actor in enumerate(actors):
        centre = (width * (2 * k + 1) / (2 * len(actors)), height * 0.5)
        track = poses(rng, length, look, centre, scale, pace)
        if away and k == 0:
            track = leave(track, *away, distance=-(width / len(actors)))
        tracks.append(track)
        hidden.append(occlusions(rng, length, look, actor.who.skin))
    lens = Lens(rng, width, height, length, look)
    for t in range(length):
        canvas = room.copy()
        seen: list[Landmarks | None] = []
        for actor, track, things in zip(actors, tracks, hidden, strict=True):
            course = actor.course
            au = dict(zip(DRAWN, course.drawn[t].tolist(), strict=True))
            action = Action(au, tuple(course.gaze[t]), float(course.rounding[t]))
            marks = actor.draw(canvas, action, track[t])
            for thing in things:
                if thing.start <= t < thing.end:
                    thing.draw(canvas, track[t])
            inside = np.all((marks.points >= 0) & (marks.points < [width, height]))
            seen.append(marks if inside else None)
        yield lens.expose(canvas, t), seen
