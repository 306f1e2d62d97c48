"""Small videos for the tests."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def pattern(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A picture that encodes its number: bright bars for the bits of `index`, on a gradient."""
    image = np.tile(np.linspace(20, 90, width).astype(np.uint8)[None, :, None], (height, 1, 3))
    for bit in range(8):
        if index >> bit & 1:
            image[:, bit * width // 8 : (bit + 1) * width // 8] = 230
    return image


def number_of(image: np.ndarray) -> int:
    """The number in a `pattern`, however it was compressed."""
    bars = image.mean((0, 2)).reshape(8, -1).mean(1)
    return int(sum(1 << bit for bit in range(8) if bars[bit] > 150))


def write_movie(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """Write frames with the given time stamps."""
    with av.open(str(path), "w", container_options=container or {}) as out:
        stream = out.add_stream(codec, rate=Fraction(1) / time_base, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.time_base = time_base
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (index if times is None else times[index]), time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def packets(path: Path) -> list[tuple[int, int]]:
    """Position and size of every packet in the file."""
    with av.open(str(path)) as movie:
        return [(packet.pos, packet.size) for packet in movie.demux(video=0) if packet.size]
