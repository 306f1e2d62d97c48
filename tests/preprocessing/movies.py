"""Small videos for the tests."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from preprocessing.align import encode_jpeg
from preprocessing.video import read_frames


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


def write_tiles(path: Path, tiles: Sequence[np.ndarray], *, thumbnail: bool) -> Path:
    """Write a HEIF photograph of two by two JPEG tiles, in the form of a telephone's."""
    height, width = tiles[0].shape[:2]
    grid = struct.pack(">4B2H", 0, 0, 1, 1, 2 * width, 2 * height)
    items = [*(encode_jpeg(tile) for tile in tiles), grid, *([encode_jpeg(tiles[0])] if thumbnail else [])]
    numbers = range(1, len(items) + 1)
    refers = box("dimg", struct.pack(">2H4H", 5, 4, 1, 2, 3, 4))
    refers += box("thmb", struct.pack(">3H", 6, 1, 5)) if thumbnail else b""
    info = [
        full_box("infe", struct.pack(">2H4sx", n, 0, b"grid" if n == 5 else b"jpeg"), version=2, flags=int(n < 5))
        for n in numbers
    ]
    sizes = [full_box("ispe", struct.pack(">2I", k * width, k * height)) for k in (1, 2)]
    of_item = [struct.pack(">H2B", n, 1, 2 if n == 5 else 1) for n in numbers]
    kind = box("ftyp", b"heic", bytes(4), b"mif1heic")

    def meta(start: int) -> bytes:
        ends = np.cumsum([start, *map(len, items)]).tolist()
        places = [struct.pack(">3H2I", n, 0, 1, ends[n - 1], len(items[n - 1])) for n in numbers]
        return full_box(
            "meta",
            full_box("hdlr", struct.pack(">I4s13x", 0, b"pict")),
            full_box("pitm", struct.pack(">H", 5)),
            full_box("iloc", struct.pack(">2BH", 0x44, 0, len(items)), *places),
            full_box("iinf", struct.pack(">H", len(items)), *info),
            full_box("iref", refers),
            box("iprp", box("ipco", *sizes), full_box("ipma", struct.pack(">I", len(items)), *of_item)),
        )

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(kind + meta(len(kind) + len(meta(0)) + 8) + box("mdat", *items))
    return path


def box(name: str, *parts: bytes) -> bytes:
    """A box of an MP4 or HEIF file."""
    data = b"".join(parts)
    return struct.pack(">I4s", len(data) + 8, name.encode()) + data


def full_box(name: str, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    """A box that begins with a version and flags."""
    return box(name, struct.pack(">I", version << 24 | flags), *parts)


def packets(path: Path) -> list[tuple[int, int]]:
    """Position and size of every packet in the file."""
    with av.open(str(path)) as movie:
        return [(packet.pos, packet.size) for packet in movie.demux(video=0) if packet.size]


def clicks_at(seconds: Sequence[float], rate: int, length_s: float) -> np.ndarray:
    """Faint noise with a burst of 4 ms around each of some times, float32 [N]."""
    rng = np.random.default_rng(0)
    wave = rng.normal(0, 1e-4, round(length_s * rate)).astype(np.float32)
    for second in seconds:
        begin, end = round((second - 0.002) * rate), round((second + 0.002) * rate)
        wave[begin:end] = rng.uniform(-0.9, 0.9, end - begin)
    return wave


def write_talkie(
    path: Path,
    times: Sequence[int],
    waves: Sequence[np.ndarray],
    *,
    rate: int = 44_100,
    first_s: float = 0.0,
    gap: tuple[int, int] = (0, 0),
    codec: str = "pcm_s16le",
) -> Path:
    """Write dark frames at `times` (ms) and sound tracks that begin at `first_s`; samples of the `gap` are left out."""
    with av.open(str(path), "w") as out:
        picture = out.add_stream("libx264", rate=25, options={"crf": "30"})
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        picture.codec_context.time_base = picture.time_base = Fraction(1, 1000)
        tracks = [out.add_stream(codec, rate=rate, layout="mono") for _ in waves]
        for time in times:
            frame = av.VideoFrame.from_ndarray(pattern(0), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            out.mux(picture.encode(frame))
        out.mux(picture.encode())
        for track, wave in zip(tracks, waves, strict=True):
            step = track.codec_context.frame_size or 1024
            for start in range(0, len(wave), step):
                if gap[0] <= start < gap[1]:
                    continue
                part = np.round(wave[None, start : start + step] * 32767).astype(np.int16)
                sound = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
                sound.sample_rate, sound.time_base = rate, Fraction(1, rate)
                sound.pts = start + round(first_s * rate)
                resampled = [sound] if codec.startswith("pcm") else _as(track, sound)
                for one in resampled:
                    out.mux(track.encode(one))
            out.mux(track.encode())
    return path


def _as(track: av.AudioStream, sound: av.AudioFrame) -> list[av.AudioFrame]:
    """The sound in the form that an encoder takes."""
    context = track.codec_context
    return av.AudioResampler(context.format, context.layout, context.rate).resample(sound)


def read(path):
    problems = []
    return list(read_frames(path, problems.append)), problems


def flag() -> np.ndarray:
    """A picture that looks different in each of its eight orientations."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32] = (250, 30, 30)
    image[:24, 32:] = (30, 250, 30)
    return image
