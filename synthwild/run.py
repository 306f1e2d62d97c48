"""SynthWild: a synthetic corpus in the form of Aff-Wild2, so that every stage runs without licensed data.

Writes DIR/release (same tree as the 6th ABAW release), DIR/answers (labels of the test split, kept separate),
DIR/unlabelled (videos of other people, for stage 1) and, last, DIR/synthwild.json.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from checkpoints.artifact import read_header, read_json, write_header, write_json
from checkpoints.errors import UserError, guarded
from synthwild.plan import Video, plan
from wildaffect.report.bar import progress_bar

KIND, SCHEMA, HEADER = "synthwild corpus", 1, "synthwild.json"
STARTED = ".synthwild-config.json"


@dataclass(frozen=True)
class Config:
    """Write a synthetic corpus in the form of the 6th ABAW release of Aff-Wild2."""

    out: Path = tyro.MISSING
    """Folder to write. A finished corpus with the same settings is left alone; an interrupted one is completed."""
    size: Literal["tiny", "small", "medium", "pool"] = "small"
    """tiny: for tests; small: for the demo (< 8,000 frames); medium: for studies (< 40,000); pool: unlabelled only."""
    seed: int = 0
    """Corpora with different seeds or sizes have no person in common."""
    leaky: bool = False
    """Reproduce the overlaps between the tasks' splits that the real release has."""
    workers: int = 1
    """Number of processes; it does not change the result."""


def settings(config: Config) -> dict[str, Any]:
    """The settings that determine the bytes of the corpus."""
    return {"size": config.size, "seed": config.seed, "leaky": config.leaky}


def check_folder(out: Path, config: Config) -> bool:
    """Whether the corpus is already there.

    Raises:
        UserError: The folder holds something else.
    """
    complete = (out / HEADER).exists()
    if complete or (out / STARTED).exists():
        made = read_header(out, HEADER, kind=KIND, schema=SCHEMA)["config"] if complete else read_json(out / STARTED)
        if made != settings(config):
            raise UserError(f"{out} holds a different corpus ({made}): choose another --out or delete it")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty and holds no SynthWild corpus: choose another --out")
    return complete


def describe(video: Video) -> dict[str, Any]:
    """The header's entry for one video."""
    subjects = {
        name: {"identity": "-".join(map(str, subject.identity)), "splits": subject.splits}
        for subject, name in zip(video.subjects, video.ids(), strict=True)
    }
    return {
        "file": f"{video.folder}/{video.name}{video.extension}",
        **{name: getattr(video, name) for name in ("frames", "lines", "rate", "variable_rate", "away")},
        "subjects": subjects,
    }


def count(videos: Sequence[Video]) -> dict[str, int]:
    """The header's counts."""
    pool = [video for video in videos if video.folder == "unlabelled"]
    labelled = [video for video in videos if video.folder != "unlabelled"]
    return {
        "videos": len(labelled),
        "labelled_frames": sum(video.frames for video in labelled),
        "unlabelled_videos": len(pool),
        "unlabelled_frames": sum(video.frames for video in pool),
        "identities": len({subject.identity for video in videos for subject in video.subjects}),
    }


def generate(out: Path, config: Config) -> Path:
    """Write the corpus and return its folder.

    Raises:
        UserError: The folder holds something else.
    """
    from synthwild import release  # heavy, and `--help` does not need it

    if check_folder(out, config):
        print(f"{out}: complete, nothing to do")
        return out
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / STARTED, settings(config))
    videos = plan(config.size, config.seed, config.leaky)
    frames = sum(video.frames for video in videos)
    with progress_bar(total=frames, unit="frame", desc=f"synthwild {config.size}") as bar:
        for video in release.make_videos(out, videos, config.workers):
            bar.update(video.frames)
    release.write_lists(out, videos)
    write_header(
        out,
        HEADER,
        kind=KIND,
        schema=SCHEMA,
        made_by="synthwild/run.py",
        config=settings(config),
        parents={},
        counts=count(videos),
        videos={video.name: describe(video) for video in videos},
    )
    (out / STARTED).unlink()
    n = count(videos)
    print(
        f"{out}: {n['videos']} labelled videos ({n['labelled_frames']:,} frames), "
        f"{n['unlabelled_videos']} unlabelled ({n['unlabelled_frames']:,} frames), {n['identities']} people"
    )
    return out


def main() -> None:
    """Read the command line and write the corpus."""
    config = tyro.cli(Config, description=__doc__)
    generate(config.out, config)


if __name__ == "__main__":
    guarded(main)
