"""SynthWild: a synthetic corpus in the form of Aff-Wild2, so that every stage runs without licensed data.

Writes DIR/release (the 6th ABAW release's tree), DIR/answers (labels of the test split, kept apart), DIR/unlabelled
(videos of other people for stage 1) and, last, DIR/synthwild.json.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from checkpoints.artifact import read_header, read_json, write_header, write_json
from checkpoints.errors import UserError, guarded

if TYPE_CHECKING:
    from synthwild.plan import Video

KIND, SCHEMA, HEADER = "synthwild corpus", 1, "synthwild.json"
STARTED = ".synthwild-config.json"


@dataclass(frozen=True)
class Config:
    """Write a synthetic corpus in the form of the 6th ABAW release of Aff-Wild2."""

    out: Path | None = None
    """Folder to write; a finished corpus of the same settings is left alone, an interrupted one is finished."""
    size: Literal["tiny", "small", "medium", "pool"] = "small"
    """tiny: tests; small: the demo (< 8,000 frames); medium: studies (< 40,000); pool: unlabelled videos only."""
    seed: int = 0
    """Corpora of different seeds or sizes share no person."""
    leaky: bool = False
    """Reproduce the release's overlaps between the tasks' splits."""
    workers: int = 1
    """Processes; the result does not depend on their number."""
    contact_sheet: Path | None = None
    """NAME.png: also draw NAME_identities.png and NAME_aus.png, every expression and every action unit to look at."""


def settings(config: Config) -> dict[str, Any]:
    """The settings that decide the corpus's bytes."""
    return {"size": config.size, "seed": config.seed, "leaky": config.leaky}


def check_folder(out: Path, config: Config) -> bool:
    """Whether the corpus is already there; refuses a folder that holds something else."""
    if (out / HEADER).exists():
        found = read_header(out, HEADER, kind=KIND, schema=SCHEMA)["config"]
        if found != settings(config):
            raise UserError(f"{out} holds another corpus ({found}): choose another --out or delete it")
        return True
    if (out / STARTED).exists():
        found = read_json(out / STARTED)
        if found != settings(config):
            raise UserError(f"{out} holds an unfinished other corpus ({found}): choose another --out or delete it")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty and holds no SynthWild corpus: choose another --out")
    return False


def make_all(out: Path, config: Config, videos: "list[Video]") -> None:
    """Draw every video, in this process or several."""
    from tqdm import tqdm

    from synthwild.release import make_video

    make = partial(make_video, out)
    frames = sum(video.frames for video in videos)
    with tqdm(total=frames, unit="frame", desc=f"synthwild {config.size}", mininterval=1.0) as bar:
        if config.workers <= 1:
            for video in videos:
                make(video)
                bar.update(video.frames)
            return
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        with ProcessPoolExecutor(config.workers, mp_context=get_context("spawn")) as pool:
            for video, _ in zip(videos, pool.map(make, videos, chunksize=8), strict=True):
                bar.update(video.frames)


def describe(video: "Video") -> dict[str, Any]:
    """What the header says of one video."""
    subjects = {
        name: {"identity": "-".join(map(str, subject.identity)), "splits": subject.splits}
        for subject, name in zip(video.subjects, video.ids(), strict=True)
    }
    return {
        "file": f"{video.folder}/{video.name}{video.extension}",
        "frames": video.frames,
        "lines": video.lines,
        "rate": video.rate,
        "variable_rate": video.variable_rate,
        "away": video.away,
        "subjects": subjects,
    }


def count(videos: "list[Video]") -> dict[str, int]:
    """How much there is."""
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
        UserError: the folder holds something else.
    """
    from synthwild.plan import plan
    from synthwild.release import write_lists

    if check_folder(out, config):
        print(f"{out}: complete, nothing to do")
        return out
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / STARTED, settings(config))
    videos = plan(config.size, config.seed, config.leaky)
    make_all(out, config, videos)
    write_lists(out, videos)
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
        f"{out}: {n['videos']} labelled videos ({n['labelled_frames']} frames), "
        f"{n['unlabelled_videos']} unlabelled ({n['unlabelled_frames']} frames), {n['identities']} people"
    )
    return out


def main() -> None:
    """Command line."""
    config = tyro.cli(Config, description=__doc__)
    if config.out is None and config.contact_sheet is None:
        raise UserError("nothing to do: give --out DIR, or --contact-sheet NAME.png")
    if config.contact_sheet:
        from synthwild.sheet import write_sheets

        for path in write_sheets(config.contact_sheet, config.seed):
            print(path)
    if config.out:
        generate(config.out, config)


if __name__ == "__main__":
    guarded(main)
