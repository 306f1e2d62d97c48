"""Damaged videos and pictures, and what the readers make of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from PIL import Image

from benchmarks.hostile.line import Line, picture
from benchmarks.hostile.mutate import damage
from benchmarks.hostile.outcome import Tally, judged, run_command
from preprocessing.pictures import picture_kind, read_picture
from preprocessing.video import count_frames, holds_video, read_frames, read_times

FRAMES, WIDTH, HEIGHT = 14, 64, 48
VIDEOS = {  # name -> codec of the picture, codec of the sound
    "h264.mp4": ("libx264", "aac"),
    "h264.mkv": ("libx264", "aac"),
    "mpeg4.avi": ("mpeg4", ""),
    "mpeg1.mpg": ("mpeg1video", ""),
    "h264.ts": ("libx264", ""),
    "mjpeg.mov": ("mjpeg", ""),
    "flv.flv": ("flv", ""),
    "moving.gif": ("gif", ""),
}
PICTURES = ("jpeg", "png", "bmp", "tiff", "webp", "gif", "ppm", "ico", "tga", "jpeg2000")


def make_videos(folder: Path, rng: np.random.Generator) -> list[Path]:
    """Write one small clip of each kind that FFmpeg can encode here."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, codecs in VIDEOS.items():
        with av.open(str(folder / name), "w") as output:
            stream = cast(Any, output.add_stream(codecs[0], rate=25))
            stream.width, stream.height = WIDTH, HEIGHT
            stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codecs[0], "yuv420p")
            if codecs[0] != "gif":
                stream.codec_context.gop_size = 5
            sound = cast(Any, output.add_stream(codecs[1], rate=16_000)) if codecs[1] else None
            for number in range(FRAMES):
                pixels = rng.integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=stream.pix_fmt)
                frame.pts, frame.time_base = number, Fraction(1, 25)
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
            if sound is not None:
                noise = rng.normal(0, 0.1, (1, 8000)).astype(np.float32)
                samples = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
                samples.sample_rate, samples.pts = 16_000, 0
                output.mux(sound.encode(samples))
                output.mux(sound.encode())
        made.append(folder / name)
    return made


def make_pictures(rng: np.random.Generator) -> dict[str, bytes]:
    """One small picture of each kind, in colour, grey or with a palette, by name."""
    made = {}
    for kind in PICTURES:
        for mode in ("RGB", "L", "P", "RGBA", "CMYK", "I;16", "1"):
            pixels = rng.integers(0, 255, (33, 41, 3), np.uint8)
            picture = Image.fromarray(pixels)
            picture = (
                Image.fromarray(pixels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else picture.convert(mode)
            )
            buffer = io.BytesIO()
            try:
                picture.save(buffer, kind)
            except (OSError, ValueError, KeyError):  # there is no such picture
                continue
            made[f"{mode.replace(';', '')}.{kind}"] = buffer.getvalue()
    return made


def read_video(path: Path) -> None:
    """Read a video in every way, and check what came.

    Raises:
        UserError: It cannot be read.
        AssertionError: What came breaks the promises of :class:`preprocessing.video.Frame`.
    """
    problems: list[str] = []
    times = read_times(path)
    assert times == sorted(times) and np.isfinite(times).all(), "times do not rise"
    holds_video(path)
    frames = [(frame.index, frame.time_s, frame.image) for frame in read_frames(path, problems.append)]
    assert [index for index, _, _ in frames] == list(range(1, len(frames) + 1)), "frames are not numbered in order"
    clock = np.array([time for _, time, _ in frames])
    clock = clock[np.isfinite(clock)]
    assert (np.diff(clock) > 0).all(), "time does not rise"
    shapes = {image.shape for _, _, image in frames if image is not None}
    assert len(shapes) == 1, f"shapes {shapes}"
    assert count_frames(path, problems.append) == len(frames), "two counts of frames"
    assert all("\n" not in problem for problem in problems), "a problem of several lines"


def read_one_picture(path: Path) -> None:
    """Read a picture as preprocessing does."""
    if picture_kind(path) == "video":
        read_video(path)
        return
    image = read_picture(path)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, f"{image.dtype} {image.shape}"


def fuzz_media(work: Path, rng: np.random.Generator, count: int) -> Tally:
    """Damage videos and pictures in turn, and read each."""
    tally = Tally()
    videos = [(path.name, path.read_bytes(), read_video) for path in make_videos(work / "whole", rng)]
    pictures = [(name, data, read_one_picture) for name, data in make_pictures(rng).items()]
    targets: list[tuple[str, bytes, Callable[[Path], None]]] = [*videos, *pictures]
    for name, data, read in targets:
        path = work / name
        path.write_bytes(data)
        with judged(tally, f"whole {name}"):
            read(path)
        path.unlink()
    for number in range(count):
        name, data, read = (videos if number % 2 else pictures)[
            int(rng.integers(len(videos if number % 2 else pictures)))
        ]
        other = targets[int(rng.integers(len(targets)))][1]
        what, damaged = damage(data, other, rng)
        suffix = Path(targets[int(rng.integers(len(targets)))][0]).suffix if rng.random() < 0.1 else Path(name).suffix
        path = (work / f"case{number}").with_suffix(suffix)
        path.write_bytes(damaged)
        with judged(tally, f"{name} {what} as {suffix}"):
            read(path)
        path.unlink()
    return tally


def mixed_folders(line: Line, work: Path, rng: np.random.Generator, count: int, bad: int = 12) -> Tally:
    """Folders of damaged pictures and videos, among which one picture is whole, for preprocessing and for `predict`."""
    tally = Tally()
    for number in range(count):
        folder, out = work / f"mixed{number}", work / f"out{number}"
        parts = [*make_pictures(rng).items()]
        parts += [(path.name, path.read_bytes()) for path in make_videos(work / "whole", rng)]
        folder.mkdir(parents=True)
        (folder / "good.jpg").write_bytes(picture(number))
        for other in range(bad):
            name, data = parts[int(rng.integers(len(parts)))]
            _, damaged = damage(data, parts[int(rng.integers(len(parts)))][1], rng)
            (folder / f"bad{other}{Path(name).suffix}").write_bytes(damaged)
        end = run_command(
            ["preprocessing/run.py", "--source", str(folder), "--workers", "1", "--out", str(out / "faces")]
        )
        fault = end.fault or ("" if end.status == 0 else f"status {end.status}: {end.output}")
        tally.add(f"preprocessing of mixed folder {number}", f"status {end.status}", fault)
        end = run_command(
            [
                *("wildaffect/cli.py", "predict", str(folder), "--heads", str(line.head)),
                *("--device", "cpu", "--out", str(out / "predictions")),
            ],
            seconds=300,
        )
        named = end.status == 0 or "bad" in end.output.rpartition("error: ")[2]
        good = (out / "predictions" / "good" / "predictions.json").exists()
        fault = end.fault or ("" if named and good else f"good: {good}, the bad are named: {named}: {end.output}")
        tally.add(f"predict of mixed folder {number}", f"status {end.status}", fault)
    return tally
