"""The annotated video: H.264 with the original time stamps and sound."""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa

from checkpoints.artifact import atomic_file
from preprocessing.read_ahead import read_ahead
from preprocessing.video import read_frames
from wildaffect.inference.panel import Painter, people_of
from wildaffect.inference.progress import Progress

CLOCK = 90_000
AHEAD = 4
"""Frames that are decoded while others are drawn and encoded."""
COPIED = ("aac",)
"""Sound that every browser plays and that is copied; other sound is encoded as AAC."""


def annotate_clip(
    clip: Path,
    table: pa.Table,
    path: Path,
    *,
    thresholds: np.ndarray | None = None,
    footer: str = "predicted by wildaffect",
    comment: str = "",
    progress: Progress | None = None,
) -> None:
    """Draw a table's predictions on and beside its video.

    Frames keep the times between them, so that sound and picture stay in sync even if the frame rate varies. The first
    one is at zero, whatever its time stamp, which is written on the picture; sound from before it is left out.

    Args:
        clip: The video.
        table: Its predictions, see `wildaffect.inference.table`.
        path: The MP4 file to write.
        thresholds: From where each AU counts as active, `[12]`; 0.5 if not given.
        footer: Line at the bottom of the panel.
        comment: Written to the metadata, where players and `ffprobe` show it.
        progress: Called with the progress.
    """
    people = people_of(table)
    total = max(person_frame for person in people for person_frame in person.rows)
    painter: Painter | None = None
    with (
        atomic_file(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as output,
    ):
        output.metadata["comment"] = comment
        stream: Any = output.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "23"})
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, CLOCK)
        sound = Sound(clip, output)
        last = -1
        start: float | None = None
        image: np.ndarray | None = None
        for frame in read_ahead(read_frames(clip, lambda problem: None), AHEAD):
            image = frame.image if frame.image is not None else image
            if image is None:
                continue  # nothing was decoded yet
            if painter is None:
                painter = Painter(people, image.shape[1], image.shape[0], footer, thresholds)
                stream.width, stream.height = painter.size[0], painter.size[1] // 2 * 2
            seconds = frame.time_s if np.isfinite(frame.time_s) else (frame.index - 1) / 30
            start = seconds if start is None else start
            drawn = painter.draw(image, frame.index, seconds)[: stream.height]
            planes: Any = cv2.cvtColor(drawn, cv2.COLOR_RGB2YUV_I420)  # several times as fast as in the encoder
            picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            last = max(round((seconds - start) * CLOCK), last + 1)
            picture.pts, picture.time_base = last, Fraction(1, CLOCK)
            for packet in stream.encode(picture):
                output.mux(packet)
            sound.mux_until(seconds, start)
            if progress:
                progress("annotating", frame.index, total)
        for packet in stream.encode():
            output.mux(packet)
        sound.mux_until(float("inf"), start or 0.0)


class Sound:
    """The sound of a clip, copied or encoded into an open output container alongside the picture."""

    def __init__(self, clip: Path, output: Any) -> None:
        self.output = output
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None
        self.container = av.open(f"file:{clip}", options={"protocol_whitelist": "file"}, metadata_errors="replace")
        streams = self.container.streams.audio
        if not streams or not streams[0].codec_context:
            return
        source = streams[0]
        if source.codec_context.name in COPIED:
            self._packets = self._copied(source, output.add_stream_from_template(source))
        else:
            target = output.add_stream("aac", rate=source.rate or 48_000)
            target.layout = "stereo" if (source.channels or 1) > 1 else "mono"
            self._packets = self._encoded(source, target)

    def mux_until(self, seconds: float, start: float = 0.0) -> None:
        """Write the sound up to a time, with `start` moved to zero; damaged parts are left out."""
        while True:
            if self._next is None:
                self._next = next(self._packets, None)
                if self._next is None:
                    return
            packet = self._next
            if packet.pts is not None and float(packet.pts * packet.time_base) > seconds:
                return
            if start and packet.pts is not None:
                moved = round(start / packet.time_base)
                packet.pts, packet.dts = packet.pts - moved, packet.dts - moved
            if not start or packet.pts is None or packet.pts >= 0:
                with suppress(av.error.ArgumentError):  # a packet that the file cannot hold
                    self.output.mux(packet)
            self._next = None

    def _copied(self, source: Any, target: Any) -> Iterator[Any]:
        for packet in self.container.demux(source):
            if packet.dts is not None:
                packet.stream = target
                yield packet

    def _encoded(self, source: Any, target: Any) -> Iterator[Any]:
        resampler = av.AudioResampler(format="fltp", layout=target.layout.name, rate=target.rate)
        at = 0
        for packet in self.container.demux(source):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                continue
            for frame in frames:
                # Time stamps of sound are coarse in containers: samples are counted, and only a gap resets the count.
                begins = at if frame.time is None else round(frame.time * target.rate)
                if at == 0 or begins - at > target.rate // 5:
                    at = begins
                for part in resampler.resample(frame):
                    part.pts, part.time_base = at, Fraction(1, target.rate)
                    at += part.samples
                    yield from target.encode(part)
        yield from target.encode()
