"""Reads the frames of a video: each one once, in order, upright and with its own time stamp."""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from checkpoints.errors import UserError

MAX_PIXELS = 8192 * 8192
"""Larger pictures are refused before they are read: a file of a few bytes can claim any size."""

Stamped = tuple[int | None, av.VideoFrame | None]
"""A time stamp and its frame, which is None if it could not be decoded."""


@dataclass(frozen=True)
class Frame:
    """One frame of a video.

    Attributes:
        index: 1-based number of the frame.
        time_s: Presentation time in seconds, from the stream; NaN if the source has no time stamps.
        image: RGB, uint8 [H, W, 3], turned upright; None if the frame could not be decoded.
    """

    index: int
    time_s: float
    image: np.ndarray | None


def read_frames(path: Path, report: Callable[[str], None]) -> Iterator[Frame]:
    """Decode a video from its first to its last frame.

    The length of a video is the number of frames that come out, because headers are often wrong. A damaged frame keeps
    its number and comes out without an image, so that the frames after it stay aligned with the labels.

    Args:
        path: Any container that FFmpeg reads.
        report: Called with one line for each problem in an otherwise readable file.

    Yields:
        The frames. Only one is in memory at a time.

    Raises:
        UserError: The file holds no readable video.
    """
    with _opened(path) as container:
        stream = _video_stream(container)
        yield from _numbered(_decode(container, stream, report), stream)


def count_frames(path: Path, report: Callable[[str], None]) -> int:
    """Count the frames that :func:`read_frames` yields, several times faster.

    Raises:
        UserError: The file holds no readable video.
    """
    with _opened(path) as container:
        stream = _video_stream(container)
        return sum(1 for _ in _decode(container, stream, report))


def _opened(path: Path) -> av.container.InputContainer:
    # Only local files: a playlist posing as a video must not open network addresses.
    try:
        return av.open(f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"cannot be opened as a video: {error.strerror or error}") from None


def _video_stream(container: av.container.InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # cover art of an audio file
            break
    else:
        raise UserError("has no video stream")
    context = stream.codec_context
    if context.width * context.height > MAX_PIXELS:
        raise UserError(f"claims frames of {context.width}x{context.height} pixels; at most {MAX_PIXELS} are read")
    context.thread_count = 1  # workers share the cores, and the frames do not depend on the machine
    context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def _decode(
    container: av.container.InputContainer, stream: VideoStream, report: Callable[[str], None]
) -> Iterator[Stamped]:
    """Decode a stream in presentation order, with an empty frame where a packet could not be decoded."""
    timeline = _Timeline()
    packets = 0
    try:
        for packet in container.demux(stream):
            packets += packet.size > 0
            if (pts := _shown_at(packet)) is not None:
                timeline.expect(pts)
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                yield from timeline.skip()
                continue
            for frame in frames:
                yield from timeline.place(frame)
    except (av.FFmpegError, OSError) as error:
        report(f"reading stopped after packet {packets}: {error.strerror or error}")
    yield from timeline.finish(report)
    if packets < stream.frames:
        report(f"the file ends early: it holds {packets} of the {stream.frames} packets its header lists")


def _shown_at(packet: av.Packet) -> int | None:
    """Time stamp of the frame that a packet announces, if it announces one."""
    return packet.pts if packet.size and not packet.is_discard else None


class _Timeline:
    """Notices which frames are missing, by comparing the frames that come out with the time stamps of the packets.

    Time stamps usually rise. If they run backwards in an undamaged file (files joined into one, or a writer that
    numbers packets wrongly), they say nothing: from there on, frames are kept in the order of the decoder.
    """

    def __init__(self) -> None:
        self._expected: list[int] = []  # a heap of time stamps whose frames have not come out yet
        self._last: int | None = None  # time stamp of the latest frame
        self._damaged = self._late = 0
        self._backwards = False

    def expect(self, pts: int) -> None:
        """Note that a packet announces a frame at this time."""
        heapq.heappush(self._expected, pts)

    def skip(self) -> Iterator[Stamped]:
        """Note that a packet could not be decoded. Its place is filled once a later frame shows it to be missing."""
        self._damaged += 1
        if self._backwards:
            yield None, None

    def place(self, frame: av.VideoFrame) -> Iterator[Stamped]:
        """Yield a decoded frame, after empty ones for those missing before it."""
        self._damaged += frame.is_corrupt
        if not self._backwards and frame.pts is not None and self._last is not None and frame.pts <= self._last:
            if self._damaged:  # an empty frame has already taken its place
                self._late += 1
                return
            self._backwards = True
        if self._backwards:
            yield None, frame
            return
        while frame.pts is not None and self._expected and self._expected[0] <= frame.pts:
            missing = heapq.heappop(self._expected)
            # In an undamaged file a packet may rightly yield no frame (edit lists, open groups of pictures).
            if self._damaged and missing != frame.pts:
                yield missing, None
        self._last = frame.pts
        yield frame.pts, frame

    def finish(self, report: Callable[[str], None]) -> Iterator[Stamped]:
        """Yield empty frames for those missing at the end, and report what was wrong."""
        if self._damaged:
            if not self._backwards:
                yield from ((pts, None) for pts in sorted(self._expected))
            report(f"damaged packets or frames: {self._damaged}; frames that came too late: {self._late}")
        if self._backwards:
            report("time stamps run backwards: frames keep the order of the decoder and get evenly spaced times")


def _numbered(frames: Iterator[Stamped], stream: VideoStream) -> Iterator[Frame]:
    """Number the frames, turn them upright and give each a time."""
    convert = VideoReformatter()  # shared by all frames: preparing it takes longer than converting a frame
    aspect = float(stream.sample_aspect_ratio or 1)  # of a pixel: a face must not come out squeezed
    step = float(1 / stream.average_rate) if stream.average_rate else float("nan")
    index, decoded, time_s = 0, 0, -step
    for index, (pts, frame) in enumerate(frames, start=1):
        time_s = time_s + step if pts is None or stream.time_base is None else float(pts * stream.time_base)
        image: np.ndarray | None = None
        if frame is not None:
            width = max(1, round(frame.width * aspect))
            image = convert.reformat(frame, width=width, format="rgb24", threads=1).to_ndarray()
            if frame.rotation:
                image = np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
            decoded += 1
        yield Frame(index, time_s, image)
    if not decoded:
        raise UserError("holds no frame that can be decoded" if index else "holds no frame")


def read_times(path: Path) -> list[float]:
    """Presentation times of a video's frames in seconds, without decoding; empty if the video cannot be read."""
    try:
        with _opened(path) as container:
            packets = container.demux(_video_stream(container))
            times = [float(pts * packet.time_base) for packet in packets if (pts := _shown_at(packet)) is not None]
    except (av.FFmpegError, OSError, UserError):
        return []
    return sorted(times)
