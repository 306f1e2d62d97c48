"""Does the memory of hearing a video stay the same, however long the video is?

    python benchmarks/sound_memory.py --out benchmarks/results/sound_memory.json

A clip with stereo sound is written, once short and once long, and the rows of its frames are made from its sound in a
process of its own each, as `features/run.py --audio logmel` and `wildaffect predict` do. What grows is the rows
themselves, which are as many as the frames.
"""

import multiprocessing
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import tyro

from checkpoints.artifact import write_json
from checkpoints.errors import guarded
from features.sound import LogMel, hear
from preprocessing.video import read_times

RATE = 44_100


@dataclass
class Config:
    """Measure the memory of hearing."""

    out: Path | None = None
    """Where to record the result as JSON."""
    minutes: tuple[float, ...] = (1, 20)
    """Lengths of the clips."""


def main(config: Config) -> dict[str, Any]:
    """Measure and record."""
    result: dict[str, Any] = {
        "what": "log-mel rows of a clip at 30 frames per second, AAC stereo at 44.1 kHz; anonymous memory in MiB",
        "clips": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for minutes in config.minutes:
            clip = write_clip(Path(folder) / f"{minutes:g}.mp4", minutes * 60)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                result["clips"].append({"minutes": minutes} | pool.apply(measure, (clip,)))
            clip.unlink()
    print(result)
    if config.out is not None:
        write_json(config.out, result)
    return result


def write_clip(path: Path, seconds: float) -> Path:
    """A dark clip at 30 frames per second with noise whose loudness changes."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, (2, 1024)).astype(np.float32)
    with av.open(str(path), "w") as out:
        picture = out.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = out.add_stream("aac", rate=RATE, layout="stereo")
        dark = np.zeros((48, 64, 3), np.uint8)
        shown = 0
        for start in range(0, round(seconds * RATE), 1024):
            while shown / 30 <= start / RATE:
                frame = av.VideoFrame.from_ndarray(dark, format="rgb24")
                frame.pts, frame.time_base = shown, Fraction(1, 30)
                out.mux(picture.encode(frame))
                shown += 1
            wave = noise * np.float32(1 + np.sin(start / RATE))
            part = av.AudioFrame.from_ndarray(wave, format="fltp", layout="stereo")
            part.sample_rate, part.pts, part.time_base = RATE, start, Fraction(1, RATE)
            out.mux(sound.encode(part))
        out.mux(picture.encode())
        out.mux(sound.encode())
    return path


def measure(clip: Path) -> dict[str, Any]:
    """Largest memory while one clip is heard, beyond what the process held before; the rows are a part of it."""
    times = np.array(read_times(clip))
    process, used = psutil.Process(), []

    class Watched(LogMel):
        """Log-mel spectra; memory is read after each block of sound."""

        def tokens(self, pieces: Any) -> Any:
            """See :class:`features.sound.LogMel`."""
            for tokens in super().tokens(pieces):
                memory = process.memory_info()
                used.append((memory.rss - memory.shared) / 2**20)
                yield tokens

    memory = process.memory_info()
    before = (memory.rss - memory.shared) / 2**20
    features, valid = hear(Watched(), clip, times, print)
    return {
        "frames": len(times),
        "with_sound": int(valid.sum()),
        "rows_mib": (features.nbytes + valid.nbytes) / 2**20,
        "largest_mib": max(used) - before,
        "growth_after_first_third_mib": used[-1] - used[len(used) // 3],
    }


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))
