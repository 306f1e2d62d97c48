"""Sound as features: log-mel spectra, and the one way from a video's sound to a row for each of its frames."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from scipy import fft
from scipy.signal import get_window

from features.cache import median_step
from preprocessing.faces import FacesStore
from preprocessing.faces import Sequence as FaceSequence
from preprocessing.sound import RATE, Piece, Report, read_sound

LOGMEL = "logmel"
WINDOW, HOP, BINS = 400, 80, 512
"""Samples of a spectrum (25 ms), between spectra (5 ms, so that fast videos have some in every frame), and of the
transform."""
BANDS = 64
LOWEST, HIGHEST = 50.0, 7600.0
"""Hertz."""
QUIETEST = 1e-8
"""Power below which all is silence: that of the rounding of 16-bit sound."""

Tokens = tuple[np.ndarray, np.ndarray]
"""Times [N] in seconds, rising, and features [N, D] float32 of the sound around them."""


class Ear(ABC):
    """What turns sound into features.

    Attributes:
        dim: D.
        period_s: Seconds between its tokens.
        feature_id: Identifies what a feature means, from content and settings.
        config: How it works, for headers; `sound` says which ear it is.
        place: Where its weights are: a folder, `hf:NAME`, or "" if it has none.
        fingerprint: Of its weights, "" if it has none.
    """

    dim: int
    period_s: float
    config: dict[str, Any]
    place: str
    fingerprint: str

    @property
    @abstractmethod
    def feature_id(self) -> str:
        """See the class."""

    @abstractmethod
    def stretch(self, start: float, blocks: Iterator[np.ndarray]) -> Iterator[Tokens]:
        """Features of an unbroken stretch of sound that begins at a second, from its samples in blocks `[N]`."""

    def tokens(self, pieces: Iterable[Piece]) -> Iterator[Tokens]:
        """Features of pieces of sound (:func:`preprocessing.sound.read_sound`), where there is any."""
        for start, stretch in groupby(pieces, key=itemgetter(0)):
            yield from self.stretch(start, (samples for _, samples in stretch))


class LogMel(Ear):
    """Logarithm of the power in mel bands, every 5 ms over 25 ms."""

    dim, period_s = BANDS, HOP / RATE
    place = fingerprint = ""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {
            "sound": LOGMEL,
            **{"rate": RATE, "window": WINDOW, "hop": HOP, "bins": BINS, "bands": BANDS},
            **{"lowest": LOWEST, "highest": HIGHEST, "quietest": QUIETEST},
        }
        self._shape = get_window("hann", WINDOW).astype(np.float32)
        self._bands = (mel_bands() / (self._shape**2).sum()).astype(np.float32)

    @property
    def feature_id(self) -> str:
        """A hash of the settings."""
        return hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()

    def stretch(self, start: float, blocks: Iterator[np.ndarray]) -> Iterator[Tokens]:
        """See :class:`Ear`."""
        before = (WINDOW - HOP) // 2  # the first spectrum is centred half a hop after the start
        held, number = np.zeros(before, np.float32), 0
        for block in chain(blocks, [np.zeros(WINDOW - HOP - before, np.float32)]):
            held = np.concatenate([held, block])
            count = (len(held) - WINDOW) // HOP + 1
            if count < 1:
                continue
            windows = np.lib.stride_tricks.sliding_window_view(held, WINDOW)[: count * HOP : HOP]
            power = np.abs(fft.rfft(windows * self._shape, BINS)) ** 2
            times = start + (number + np.arange(count) + 0.5) * self.period_s
            yield times, np.log10(np.maximum(power @ self._bands.T, QUIETEST))
            held, number = held[count * HOP :], number + count


def mel_bands() -> np.ndarray:
    """Triangles that are evenly spaced on the mel scale (2595 log10(1 + f/700), O'Shaughnessy 1987) `[BANDS, F]`."""
    lowest, highest = (float(2595 * np.log10(1 + hertz / 700)) for hertz in (LOWEST, HIGHEST))
    edges = np.linspace(lowest, highest, BANDS + 2)
    low, centre, high = (700 * (10 ** (edges[k : k + BANDS, None] / 2595) - 1) for k in range(3))
    hertz = np.arange(BINS // 2 + 1) * RATE / BINS
    return np.maximum(0, np.minimum((hertz - low) / (centre - low), (high - hertz) / (high - centre)))


def hear(ear: Ear, path: Path, time_s: np.ndarray, report: Report) -> tuple[np.ndarray, np.ndarray]:
    """Features of a video's sound for each of its frames.

    A frame's row is the mean over the sound from halfway to the frame before until halfway to the frame after, but over
    one token at least.

    Args:
        ear: Makes the features.
        path: The video.
        time_s: Times of the frames `[T]` in seconds, rising.
        report: Called with one line for each problem, and if there is no sound.

    Returns:
        `[T, D]` float16, and `[T]` bool: false (and zeros) where there is no sound.
    """
    features, valid = np.zeros((len(time_s), ear.dim), np.float16), np.zeros(len(time_s), bool)
    step = median_step(time_s) or ear.period_s
    middles = np.concatenate([time_s[:1] - step / 2, (time_s[1:] + time_s[:-1]) / 2, time_s[-1:] + step / 2])
    reach = 0.501 * ear.period_s  # whatever the rounding, there is a token
    begins, ends = np.minimum(middles[:-1], time_s - reach), np.maximum(middles[1:], time_s + reach)
    times, tokens, done = np.zeros(0), np.zeros((0, ear.dim), np.float32), 0
    # After the last token every row is due.
    for more, found in chain(ear.tokens(read_sound(path, report)), [(np.array([np.inf]), np.zeros((1, ear.dim)))]):
        times, tokens = np.concatenate([times, more]), np.concatenate([tokens, found])
        due = int(np.searchsorted(ends, times[-1]))
        rows = slice(done, max(due, done))
        first, last = np.searchsorted(times, begins[rows]), np.searchsorted(times, ends[rows])
        sums = np.concatenate([np.zeros((1, ear.dim)), np.cumsum(tokens, axis=0, dtype=np.float64)])
        heard = last > first
        features[rows][heard] = (sums[last] - sums[first])[heard] / (last - first)[heard, None]
        valid[rows] = heard
        done = rows.stop
        kept = np.searchsorted(times, begins[done]) if done < len(begins) else len(times)
        times, tokens = times[kept:], tokens[kept:]
    return features, valid


def hear_video(
    ear: Ear, path: Path | None, store: FacesStore, sequences: Sequence[FaceSequence], report: Report
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Features and flags of every sequence of one video, as of :func:`hear`: its people hear the same.

    Frames without a time (beyond the end of a video that breaks off) have no sound, nor do those without a video.

    Returns:
        Id -> `[length, D]` float16 and `[length]` bool.
    """
    rows = {s.id: slice(s.start, s.start + s.length) for s in sequences}
    frames, first = np.unique(np.concatenate([store.frame[part] for part in rows.values()]), return_index=True)
    time_s = np.concatenate([store.time_s[part] for part in rows.values()])[first]
    known = np.isfinite(time_s)
    features, valid = np.zeros((len(frames), ear.dim), np.float16), np.zeros(len(frames), bool)
    if path is not None and known.any():
        features[known], valid[known] = hear(ear, path, time_s[known], report)
    places = {id: np.searchsorted(frames, store.frame[part]) for id, part in rows.items()}
    return {id: (features[place], valid[place]) for id, place in places.items()}
