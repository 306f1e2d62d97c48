"""Reads the sound of a video: one channel at one rate, on the clock of the video's frames."""

from collections.abc import Iterator
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream

from checkpoints.errors import UserError
from preprocessing.video import Report, opened, packets_of

RATE = 16_000
"""Samples per second, as speech models take them."""
SILENT = "has no sound"
APART_S = 0.01
"""Sound that is further from where the sound before it ends is a new stretch: containers round their time stamps."""

Piece = tuple[float, np.ndarray]
"""Second at which the unbroken stretch of a piece begins, and the next samples of the stretch, float32 [N]."""


def read_sound(path: Path, report: Report) -> Iterator[Piece]:
    """Decode the sound of a video; of several tracks the first.

    The clock is that of the frames' `time_s`. Where there is no sound (before it starts, after it ends, in a gap) there
    are no samples. A damaged packet is such a gap.

    Args:
        path: Any file that FFmpeg reads.
        report: Called with one line for each problem, and if there is no sound.

    Yields:
        Pieces of about a second, in order of time; nothing if there is no sound.
    """
    try:
        container = opened(path)
    except UserError as error:
        report(str(error))
        return
    with container:
        streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
        if not streams:
            report(SILENT)
            return
        if len(streams) > 1:
            report(f"has {len(streams)} sound tracks: the first is used")
        try:
            yield from _gathered(_resampled(_decoded(container, streams[0], report)))
        except (av.FFmpegError, ValueError) as error:  # channels or samples of a kind that FFmpeg cannot convert
            report(f"its sound cannot be converted: {error}")


def _decoded(
    container: av.container.InputContainer, stream: AudioStream, report: Report
) -> Iterator[tuple[float, av.AudioFrame]]:
    """Decode a stream; each frame with the start of its stretch, within which frames are of one kind and unbroken."""
    damaged, start, samples, end = 0, 0.0, 0, -np.inf
    kind: object = None
    packets: Iterator[Any] = packets_of(container, stream, lambda problem: None)  # the picture's clock has the same
    try:
        for packet in packets:
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                damaged += 1
                continue
            for frame in frames:
                if not frame.samples or not frame.sample_rate:
                    continue
                time_s = max(end, 0.0) if frame.time is None else frame.time
                if time_s < end - APART_S:
                    continue  # it would be heard twice
                found = (frame.format.name, frame.layout.name, frame.sample_rate)
                if found != kind or time_s > end + APART_S:
                    kind, start, samples = found, max(time_s, end), 0
                samples += frame.samples
                end = start + samples / frame.sample_rate
                yield start, frame
    except (av.FFmpegError, OSError) as error:
        report(f"its sound ends early: {error.strerror or error}")
    if damaged:
        report(f"has {damaged} damaged packets of sound")


def _resampled(frames: Iterator[tuple[float, av.AudioFrame]]) -> Iterator[Piece]:
    """Bring frames to one channel and `RATE`."""
    for start, stretch in groupby(frames, key=itemgetter(0)):
        resampler = AudioResampler(format="fltp", layout="mono", rate=RATE)
        for frame in chain((frame for _, frame in stretch), [None]):  # None: what the resampler still holds
            for part in resampler.resample(frame):
                wave = np.nan_to_num(part.to_ndarray()[0], nan=0.0)  # files with floats can hold anything
                yield start, np.clip(wave, -1, 1)


def _gathered(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Join pieces of a stretch to about a second."""
    held: list[np.ndarray] = []
    since, length = 0.0, 0
    for start, samples in pieces:
        if held and (start != since or length >= RATE):
            yield since, np.concatenate(held)
            held, length = [], 0
        since = start
        held.append(samples)
        length += len(samples)
    if held:
        yield since, np.concatenate(held)
