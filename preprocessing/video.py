"""Frames of a video: every one once, in order, upright, with its own time stamp."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from checkpoints.errors import UserError

if TYPE_CHECKING:
    import av
    from av.video.stream import VideoStream

MAX_PIXELS = 8192 * 8192
"""Larger pictures are refused unread: a file of a few bytes can claim any size."""


@dataclass(frozen=True)
class Frame:
    """One frame of a video.

    Attributes:
        index: 1-based number of the frame.
        time_s: Presentation time in seconds, as the stream says; NaN where the source has no clock.
        image: RGB, uint8 [H, W, 3], turned upright; None if the frame could not be decoded.
    """

    index: int
    time_s: float
    image: np.ndarray | None


def read_frames(path: Path, report: Callable[[str], None]) -> Iterator[Frame]:
    """Decode a video from its first to its last frame.

    The length of a video is the number of frames that come out: headers lie. A frame whose data are damaged keeps its
    number and comes out without an image, so that the frames after it stay aligned with labels.

    Args:
        path: Any container FFmpeg reads.
        report: Called with one line for each thing that is wrong with an otherwise readable file.

    Yields:
        The frames, one in memory at a time.

    Raises:
        UserError: The file holds no readable video at all.
    """
    with _opened(path) as container:
        stream = _video_stream(container)
        yield from _numbered(_decode(container, stream, report), stream)


def count_frames(path: Path, report: Callable[[str], None]) -> int:
    """Number of frames that :func:`read_frames` yields, several times faster.

    Raises:
        UserError: The file holds no readable video.
    """
    with _opened(path) as container:
        stream = _video_stream(container)
        return sum(1 for _ in _decode(container, stream, report))


def _opened(path: Path) -> av.container.InputContainer:
    import av

    # Only local files: a playlist that calls itself a video must not reach for the network.
    try:
        return av.open(f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"cannot be opened as a video: {error.strerror or error}") from None


def _video_stream(container: av.container.InputContainer) -> VideoStream:
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # the cover of an audio file
            break
    else:
        raise UserError("has no video stream")
    context = stream.codec_context
    if context.width * context.height > MAX_PIXELS:
        raise UserError(f"claims frames of {context.width}x{context.height} pixels; at most {MAX_PIXELS} are read")
    context.thread_count = 1  # workers share the cores; frames of one video come out the same whatever the machine
    context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def _decode(
    container: av.container.InputContainer, stream: VideoStream, report: Callable[[str], None]
) -> Iterator[tuple[int | None, av.VideoFrame | None]]:
    """Yield (time stamp, frame) in order of presentation; the frame is None where a packet could not be decoded."""
    import av

    waiting: list[int] = []  # time stamps of packets whose frame has not come out yet
    last: int | None = None
    packets = damaged = late = 0
    lost = False  # time stamps have run backwards: files joined into one, a writer that numbers packets wrongly
    try:
        for packet in container.demux(stream):
            packets += packet.size > 0
            if packet.size and packet.pts is not None and not packet.is_discard:
                heapq.heappush(waiting, packet.pts)
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                damaged += 1
                if lost:
                    yield None, None
                continue
            for frame in frames:
                damaged += frame.is_corrupt
                if frame.pts is not None and last is not None and frame.pts <= last and damaged and not lost:
                    late += 1  # its place has been given up
                    continue
                lost = lost or (frame.pts is not None and last is not None and frame.pts <= last)
                if lost:  # the decoder's order is what there is
                    yield None, frame
                    continue
                missing = _up_to(frame.pts, waiting)
                # Without damage a packet may rightly yield no picture (edit lists, open groups of pictures).
                yield from ((pts, None) for pts in missing if damaged)
                last = frame.pts
                yield frame.pts, frame
    except (av.FFmpegError, OSError) as error:
        report(f"reading stopped after packet {packets}: {error.strerror or error}")
    if damaged:
        yield from ((pts, None) for pts in sorted(waiting) if not lost)
        report(f"damaged packets or frames: {damaged}; frames that came too late: {late}")
    if lost:
        report("time stamps run backwards: frames are kept as they are decoded, and their times go on evenly")
    if packets < stream.frames:
        report(f"the file ends early: it holds {packets} of the {stream.frames} packets its header lists")


def _up_to(pts: int | None, waiting: list[int]) -> list[int]:
    """Take the time stamps up to `pts` from a heap; those before it."""
    before = []
    while pts is not None and waiting and waiting[0] <= pts:
        before.append(heapq.heappop(waiting))
    return [stamp for stamp in before if stamp != pts]


def _numbered(frames: Iterator[tuple[int | None, av.VideoFrame | None]], stream: VideoStream) -> Iterator[Frame]:
    """Number the frames, turn them upright and give each a time."""
    from av.video.reformatter import VideoReformatter

    convert = VideoReformatter()  # one for all frames: preparing it takes longer than converting a frame
    aspect = float(stream.sample_aspect_ratio or 1)  # of a pixel; a face must not come out squeezed
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
    """Presentation times of a video's frames in seconds, without decoding them; empty if it cannot be read."""
    import av

    try:
        with _opened(path) as container:
            times = [
                float(packet.pts * packet.time_base)
                for packet in container.demux(_video_stream(container))
                if packet.size and packet.pts is not None and not packet.is_discard
            ]
    except (av.FFmpegError, OSError, UserError):
        return []
    return sorted(times)
