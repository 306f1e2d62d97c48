"""Reads the frames of a video: each one once, in order, upright, of one size and with its own time stamp."""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.stream import Disposition
from av.video.stream import VideoStream

from checkpoints.errors import UserError
from preprocessing.animations import read_animation
from preprocessing.converter import Converter
from preprocessing.pictures import MAX_PIXELS, animated

LISTS = {"concat", "hls", "dash", "imf"}
"""FFmpeg's names for files that only point to others."""
TEXT_CODECS = {"ansi", "bintext", "xbin", "idf"}
"""FFmpeg would draw a text file as the screen of a terminal."""
STILL = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
SAMPLE = 2000
"""Packets to look at where several streams could be the film."""
BACK_S, AHEAD_S = 0.25, 10.0
"""A time stamp that jumps by more is looked at together with the one after it."""
HELD = 4
"""Frames that wait for a later one with a sound time stamp."""

Stamped = tuple[int | None, av.VideoFrame | None]
"""A time stamp and its frame, which is None if it could not be decoded."""
Report = Callable[[str], None]


class TiledPhotoError(UserError):
    """A photograph in tiles, each of which FFmpeg takes for a video of its own."""


@dataclass(frozen=True)
class Frame:
    """One frame of a video.

    Attributes:
        index: 1-based number of the frame.
        time_s: Presentation time in seconds, from the stream; NaN if the source has no time stamps.
        image: RGB, uint8 [H, W, 3], turned upright; None if the frame could not be decoded. All frames have the size
            of the first; a frame of another size is scaled to fit, between black bars if its shape differs.
    """

    index: int
    time_s: float
    image: np.ndarray | None


def read_frames(path: Path, report: Report) -> Iterator[Frame]:
    """Decode a video from its first to its last frame.

    The length of a video is the number of frames that come out, because headers are often wrong. A damaged frame keeps
    its number and comes out without an image, so that the frames after it stay aligned with the labels. HDR is
    tone-mapped.

    Args:
        path: Any container that FFmpeg reads, or an animated picture.
        report: Called with one line for each problem in an otherwise readable file.

    Yields:
        The frames. Only a few are in memory at a time.

    Raises:
        UserError: The file holds no readable video.
    """
    if animated(path):
        for index, (time_s, image) in enumerate(read_animation(path, report), start=1):
            yield Frame(index, time_s, image)
        return
    with opened(path) as container:
        stream = _video_stream(container, report)
        yield from _numbered(_decode(container, stream, report), stream, report)


def count_frames(path: Path, report: Report) -> int:
    """Count the frames that :func:`read_frames` yields, several times faster.

    Raises:
        UserError: The file holds no readable video.
    """
    if animated(path):
        return sum(1 for _ in read_animation(path, report))
    with opened(path) as container:
        stream = _video_stream(container, report)
        return sum(1 for _ in _decode(container, stream, report))


def holds_video(path: Path) -> bool:
    """Whether a frame of a file can be decoded, or reading it says how it could be."""
    try:
        with opened(path) as container:
            stream = _video_stream(container, lambda problem: None)
            if stream.codec_context.name in TEXT_CODECS:
                return False
            return any(frame is not None for _, frame in _decode(container, stream, lambda problem: None))
    except TiledPhotoError:
        return True
    except UserError:
        return False


def opened(path: Path) -> av.container.InputContainer:
    """Open a file that FFmpeg reads; the caller closes it.

    Raises:
        UserError: It cannot be opened, or only names other files.
    """
    # Only local files: a playlist posing as a video must not open network addresses.
    try:
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"cannot be opened as a video: {error.strerror or error}") from None
    if LISTS & set(container.format.name.split(",")):
        container.close()
        raise UserError("is a list of files: pass the videos themselves")
    return container


def _video_stream(container: av.container.InputContainer, report: Report) -> VideoStream:
    """The stream that is the film, ready to decode."""
    streams = [stream for stream in container.streams.video if stream.codec_context is not None]
    if not streams and container.streams.video:
        raise UserError("has a video stream of a kind that cannot be decoded here")
    whole = [stream for stream in streams if not stream.disposition & Disposition.dependent]
    if len(whole) < len(streams) and not any(stream.disposition & Disposition.default for stream in whole):
        # What is not a tile is a thumbnail.
        raise TiledPhotoError("is a photograph in tiles (HEIC), which is not read: save it as JPEG or PNG")
    moving = [stream for stream in whole if not stream.disposition & STILL]  # cover art of an audio file is still
    if not moving:
        raise UserError("has no video stream")
    stream = moving[0] if len(moving) == 1 else _film(container, moving)
    context = stream.codec_context
    if len(moving) > 1:
        sizes = ", ".join(f"{s.codec_context.width}x{s.codec_context.height}" for s in moving)
        report(f"has {len(moving)} video streams ({sizes}): number {moving.index(stream) + 1} is read")
    if context.width * context.height > MAX_PIXELS:
        raise UserError(f"claims frames of {context.width}x{context.height} pixels; at most {MAX_PIXELS} are read")
    context.thread_count = 1  # workers share the cores, and the frames do not depend on the machine
    context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def _film(container: av.container.InputContainer, streams: list[VideoStream]) -> VideoStream:
    """Of several streams, the largest picture among those that last; posters have few frames, previews are small."""
    counts = dict.fromkeys((stream.index for stream in streams), 0)
    with opened(Path(container.name.removeprefix("file:"))) as other:
        try:
            for number, packet in enumerate(other.demux([other.streams[index] for index in counts])):
                counts[packet.stream.index] += packet.size > 0
                if number == SAMPLE:
                    break
        except (av.FFmpegError, OSError):
            pass  # whoever decodes the stream reports it
    lasting = [stream for stream in streams if counts[stream.index] * 4 >= max(counts.values())]
    return max(lasting, key=lambda stream: stream.codec_context.width * stream.codec_context.height)


def packets_of(
    container: av.container.InputContainer, stream: VideoStream | AudioStream, report: Report
) -> Iterator[av.Packet]:
    """Read the packets of a stream, and make its clock rise.

    Where the clock begins anew (files joined into one), the later times go on from the earlier ones. A single time
    stamp that is far off is removed. Smaller faults are left to :func:`_rising`.
    """
    tick = float(stream.time_base) if stream.time_base else 0.0
    source: Iterator[av.Packet] = container.demux(stream)
    last: int | None = None
    shift, step = 0, 1
    number = 0
    while (packet := next(source, None)) is not None:
        number += 1
        dts = None if packet.dts is None else packet.dts + shift
        jump = 0.0 if dts is None or last is None else (dts - last) * tick
        if dts is not None and last is not None and not -BACK_S < jump < AHEAD_S:
            following = next(source, None)
            after = dts if following is None or following.dts is None else following.dts + shift
            if following is not None:
                source = chain([following], source)
            if (jump < 0 and after > last) or last < after < dts:
                packet.pts = packet.dts = dts = None
            elif jump < 0:
                shift += last + step - dts
                dts = last + step
                report(f"time stamps run backwards at packet {number}: the times go on from those before")
        if shift and dts is not None:
            packet.dts = dts
            packet.pts = None if packet.pts is None else packet.pts + shift
        if dts is not None:
            if last is not None and dts > last:
                step = dts - last
            last = dts if last is None else max(last, dts)
        yield packet


def _decode(container: av.container.InputContainer, stream: VideoStream, report: Report) -> Iterator[Stamped]:
    """Decode a stream in presentation order, with an empty frame where a packet could not be decoded."""
    timeline = _Timeline()
    packets = 0
    try:
        for packet in packets_of(container, stream, report):
            packets += packet.size > 0
            if (pts := _shown_at(packet)) is not None:
                timeline.expect(pts)
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                timeline.skip()
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
    """Notices which frames are missing, by comparing the frames that come out with the time stamps of the packets."""

    def __init__(self) -> None:
        self._expected: list[int] = []  # a heap of time stamps whose frames have not come out yet
        self._filled: set[int] = set()  # time stamps of empty frames
        self._damaged = self._late = 0

    def expect(self, pts: int) -> None:
        """Note that a packet announces a frame at this time."""
        heapq.heappush(self._expected, pts)

    def skip(self) -> None:
        """Note that a packet could not be decoded. Its place is filled once a later frame shows it to be missing."""
        self._damaged += 1

    def place(self, frame: av.VideoFrame) -> Iterator[Stamped]:
        """Yield a decoded frame, after empty ones for those missing before it."""
        self._damaged += frame.is_corrupt
        if frame.pts in self._filled:  # an empty frame has already taken its place
            self._late += 1
            return
        while frame.pts is not None and self._expected and self._expected[0] < frame.pts:
            missing = heapq.heappop(self._expected)
            # In an undamaged file a packet may rightly yield no frame (edit lists, open groups of pictures).
            if self._damaged:
                self._filled.add(missing)
                yield missing, None
        if self._expected and self._expected[0] == frame.pts:
            heapq.heappop(self._expected)
        yield frame.pts, frame

    def finish(self, report: Report) -> Iterator[Stamped]:
        """Yield empty frames for those missing at the end, and report what was wrong."""
        if self._damaged:
            yield from ((pts, None) for pts in sorted(self._expected))
            report(f"damaged packets or frames: {self._damaged}; frames that came too late: {self._late}")


def _rising(stamped: Iterator[tuple[float | None, Any]], step: float) -> Iterator[tuple[float, Any, bool]]:
    """Give each frame a time in seconds that is later than the one before, and say whether it was repaired.

    A frame whose time stamp is missing, repeated or reversed waits for the next sound one, and gets its share of the
    time between. If there is none within `HELD` frames, the frames follow each other at the last distance, or at
    first by `step`.
    """
    last: float | None = None
    held: list[Any] = []

    def release(end: float | None) -> Iterator[tuple[float, Any, bool]]:
        nonlocal last
        for place, value in enumerate(held):
            if last is None:
                last = 0.0 if end is None else end - len(held) * step
            elif end is None:
                last += step
            else:
                last += (end - last) / (len(held) - place + 1)
            yield last, value, True
        held.clear()

    for time_s, value in stamped:
        if time_s is None or (last is not None and time_s <= last):
            held.append(value)
            if len(held) > HELD:
                yield from release(None)
            continue
        if last is not None and not held:
            step = time_s - last
        yield from release(time_s)
        last = time_s
        yield time_s, value, False
    yield from release(None)


def _numbered(frames: Iterator[Stamped], stream: VideoStream, report: Report) -> Iterator[Frame]:
    """Number the frames, turn them upright, bring them to one size and give each a time."""
    to_image = Converter(stream, report)
    base = float(stream.time_base) if stream.time_base else None
    step = float(1 / stream.average_rate) if stream.average_rate else float("nan")
    stamped = ((None if pts is None or base is None else pts * base, (pts, frame)) for pts, frame in frames)
    index = decoded = repaired = 0
    for index, (time_s, (pts, frame), mended) in enumerate(_rising(stamped, step), start=1):
        image = None if frame is None else to_image(frame, index)
        decoded += image is not None
        repaired += mended and pts is not None
        yield Frame(index, time_s, image)
    if repaired:
        report(f"{repaired} repeated or reversed time stamps: those frames got times between their neighbours'")
    if not decoded:
        raise UserError("holds no frame that can be decoded" if index else "holds no frame")


def read_times(path: Path) -> list[float]:
    """Presentation times of a video's frames in seconds, without decoding; empty if the video cannot be read.

    Packets without a time stamp follow the others at the stream's rate; without a rate their times are NaN.
    """
    try:
        if animated(path):
            return [time_s for time_s, _ in read_animation(path, lambda problem: None)]
        with opened(path) as container:
            stream = _video_stream(container, lambda problem: None)
            base = float(stream.time_base or 0)
            packets = packets_of(container, stream, lambda problem: None)
            shown = [packet.pts for packet in packets if packet.size and not packet.is_discard]
            step = float(1 / stream.average_rate) if stream.average_rate else float("nan")
    except (av.FFmpegError, OSError, UserError):
        return []
    stamps: list[float | None] = [pts * base for pts in sorted(pts for pts in shown if pts is not None)]
    stamps += [None] * (len(shown) - len(stamps))
    return [time_s for time_s, _, _ in _rising(((stamp, None) for stamp in stamps), step)]
