"""What synthetic people sound like: voices that follow valence and arousal, in time with the moving mouth.

A voice is made as in Fant (1960): pulses of the vocal folds, filtered by the resonances of the mouth. Arousal makes it
louder, higher, faster and sharper; valence makes it brighter (a smile shortens the vocal tract) and its melody livelier
(Scherer 2003). Every one of these also varies by itself, and between people and microphones, so that sound tells
something and not everything. It is heard while speech moves AU25 and AU26; between is room noise. In some videos a
person who is not in the picture talks as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from synthwild.people import Array
from synthwild.plan import Video
from synthwild.process import Course, smooth_noise

RATE = 16_000
"""Samples per second."""
STEPS = 100
"""Control values per second; between them they are interpolated."""
OPEN, CLOSED = ((750.0, 1150.0, 2500.0), (320.0, 1900.0, 2800.0))
"""Resonances of an open and a nearly closed mouth, in Hz."""
BANDWIDTHS = (80.0, 110.0, 170.0)
VOICED = 0.06
"""Root mean square of a calm voice; 1 is full scale."""
ROOM = 0.002
"""Root mean square of the room's noise."""


@dataclass(frozen=True)
class Speaker:
    """How one person speaks when calm: pitch in Hz, scale of the resonances, loudness as a factor, syllables/s."""

    pitch: float
    tract: float
    loudness: float
    pace: float


def random_speaker(rng: np.random.Generator) -> Speaker:
    """A person with a low or a high voice."""
    high = rng.random() < 0.5
    pitch = rng.normal(205, 18) if high else rng.normal(115, 12)
    tract = (1.12 if high else 1.0) * rng.normal(1, 0.03)
    return Speaker(float(pitch), float(tract), float(10 ** (rng.normal(0, 2.0) / 20)), float(rng.normal(4.5, 0.4)))


def resonate(source: Array, frequencies: Sequence[float], tract: float) -> Array:
    """Filter ``[N]`` by a chain of resonances that pass a constant unchanged."""
    out = source
    for frequency, width in zip(frequencies, BANDWIDTHS, strict=True):
        radius = np.exp(-np.pi * width / RATE)
        a = np.array([1.0, -2 * radius * np.cos(2 * np.pi * frequency * tract / RATE), radius**2])
        out = lfilter([a.sum()], a, out)
    return out


def speak(
    rng: np.random.Generator, speaker: Speaker, seconds: float, when: Array, feeling: Array, mouth: Array
) -> Array:
    """Let somebody speak.

    Args:
        rng: random numbers of the voice.
        speaker: who.
        seconds: how long.
        when: ``[T]`` times of the frames in seconds.
        feeling: ``[T, 2]`` valence and arousal in each frame.
        mouth: ``[T]`` how far speech opens the mouth in each frame, from 0 (silence) to .9.

    Returns:
        ``[seconds * RATE]`` samples; 1 is full scale.
    """
    control = np.arange(int(seconds * STEPS) + 2) / STEPS
    valence, arousal = (np.interp(control, when, feeling[:, k]) for k in range(2))
    opening = np.interp(control, when, mouth)
    own = smooth_noise(rng, len(control), STEPS // 2, 3)
    melody = smooth_noise(rng, len(control), STEPS // 8)[:, 0]
    loudness = speaker.loudness * 10 ** ((9 * arousal + 2.0 * own[:, 0]) / 20)
    pitch = speaker.pitch * 2 ** (
        0.35 * arousal + 0.12 * valence + 0.07 * own[:, 1] + np.clip(0.09 + 0.09 * valence, 0.01, 1) * melody
    )
    pace = speaker.pace * 2 ** (0.55 * arousal + 0.15 * own[:, 2])
    syllable = 0.55 - 0.45 * np.cos(2 * np.pi * (np.cumsum(pace) / STEPS + rng.random()))
    heard = loudness * syllable * np.clip(opening / 0.3, 0, 1)

    at = np.arange(int(seconds * RATE)) / RATE
    phase = (np.cumsum(np.interp(at, control, pitch)) / RATE + rng.random()) % 1
    sharp = np.interp(at, control, np.clip(0.5 + 0.5 * arousal, 0.05, 1))
    source = (1 - sharp) * np.sin(2 * np.pi * phase) + sharp * (2 * phase - 1) + 0.05 * rng.normal(size=len(at))
    wide = np.interp(at, control, np.clip(opening / 0.9, 0, 1))
    voice = wide * resonate(source, OPEN, speaker.tract) + (1 - wide) * resonate(source, CLOSED, speaker.tract)
    bright = np.diff(voice, prepend=0.0)
    voice = voice + np.interp(at, control, 1.5 + 1.5 * valence) * bright
    return VOICED * np.interp(at, control, heard) * voice / max(float(voice.std()), 1e-9)


def off_camera(rng: np.random.Generator, seconds: float) -> Array:
    """Somebody outside the picture, with feelings of their own ``[seconds * RATE]``."""
    when = np.arange(int(seconds * 10) + 2) / 10
    feeling = np.clip(0.5 * smooth_noise(rng, len(when), 15, 2), -1, 1)
    talking = smooth_noise(rng, len(when), 12)[:, 0] > 0.4
    return rng.uniform(0.3, 0.8) * speak(rng, random_speaker(rng), seconds, when, feeling, np.where(talking, 0.6, 0.0))


def heard_span(video: Video, seconds: float) -> tuple[float, float] | None:
    """From when to when a video has sound, in seconds; None for one without a sound track.

    As in the release, some sound starts late (not in AVI, which has no time stamps) or ends early, and some videos have
    none.
    """
    kind = video.seed[-1] % 9
    if kind == 4:
        return None
    late = kind == 5 and video.extension != ".avi"
    return (seconds * 0.2 if late else 0.0, seconds * 0.8 if kind == 6 else seconds)


def soundtrack(video: Video, courses: Sequence[Course], times: Array) -> tuple[float, NDArray[np.float32]] | None:
    """What a video sounds like.

    Args:
        video: the plan.
        courses: what each person in it does.
        times: ``[frames + 1]`` when each frame starts, and when the last one ends, in seconds.

    Returns:
        When the sound starts, and its samples ``[N]`` float32 at `RATE`; None for a video without sound.
    """
    seconds = float(times[-1])
    span = heard_span(video, seconds)
    if span is None:
        return None
    rng = np.random.default_rng([*video.seed, 23])
    middle = (times[:-1] + times[1:]) / 2
    total = rng.normal(0, ROOM, int(seconds * RATE))
    for subject, course in zip(video.subjects, courses, strict=True):
        speaker = random_speaker(np.random.default_rng([*subject.identity, 29]))
        feeling, mouth = course.feeling[: video.frames], course.speech[: video.frames]
        total += speak(rng, speaker, seconds, middle, feeling, mouth)
    if rng.random() < 0.35:
        total += off_camera(rng, seconds)
    total *= 10 ** (rng.normal(0, 1.5) / 20)  # how far the microphone is
    first, last = (round(at * RATE) for at in span)
    return span[0], np.clip(total[first:last], -1, 1).astype(np.float32)
