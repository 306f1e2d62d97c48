"""SynthWild: a synthetic corpus in the form of Aff-Wild2, so that every stage runs without licensed data.

Writes DIR/release (same tree as the 6th ABAW release), DIR/answers (labels of the test split, kept separate),
DIR/unlabelled (videos of other people, for stage 1) and, last, DIR/synthwild.json. `--faces rendered --stills N` writes
pictures of single faces with the intensities of their action units instead: DIR/stills.parquet.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tyro

from checkpoints.artifact import Header, file_hash, read_header, read_json, write_header, write_json
from checkpoints.errors import UserError, guarded
from checkpoints.lock import LOCK, locked
from checkpoints.ranges import check_ranges
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
    faces: Literal["drawn", "rendered"] = "drawn"
    """drawn: from flat shapes, which needs nothing; rendered: from a morphable model (extra `render`)."""
    model: Path | None = None
    """The morphable model of rendered faces, as synthwild/morphable.py writes it."""
    skins: Path | None = None
    """Skins of real people for rendered faces, in place of painted ones: an .npz file, see docs/labels.md."""
    sound: bool = False
    """Give the labelled videos sound: voices that follow valence and arousal, in time with the mouths."""
    stills: int = 0
    """Write this many rendered pictures, four of each person, with intensities of action units, instead of videos."""


def settings(config: Config) -> dict[str, Any]:
    """The settings that determine the bytes of the corpus.

    Raises:
        UserError: They do not fit each other, or the model is missing.
    """
    rendered = config.faces == "rendered"
    if rendered != (config.model is not None):
        raise UserError("--faces rendered and --model M.npz go together: synthwild/morphable.py makes M.npz")
    if config.stills < 0 or (config.stills and not rendered):
        raise UserError(f"--stills {config.stills}: expected a number of pictures, with --faces rendered")
    what: dict[str, Any] = {"size": config.size, "seed": config.seed, "leaky": config.leaky}
    if config.sound and (config.stills or config.size == "pool"):
        raise UserError("--sound is for labelled videos: leave it out, or choose another --size, without --stills")
    if config.sound:
        what["sound"] = True
    if config.stills:
        what = {"stills": config.stills, "seed": config.seed}
    if config.model is not None:
        if not config.model.is_file():
            raise UserError(f"--model {config.model} is not a file: make it with synthwild/morphable.py")
        what |= {"faces": "rendered", "model": file_hash(config.model)}
    if config.skins is not None:
        if not rendered or not config.skins.is_file():
            raise UserError(f"--skins {config.skins}: expected a file, with --faces rendered; see docs/labels.md")
        what["skins"] = file_hash(config.skins)
    return what


def check_folder(out: Path, wanted: dict[str, Any]) -> bool:
    """Whether the corpus is already there.

    Raises:
        UserError: The folder holds something else.
    """
    complete = (out / HEADER).exists()
    if complete or (out / STARTED).exists():
        made = (
            read_header(out, HEADER, kind=KIND, schema=SCHEMA, form=Header)["config"]
            if complete
            else read_json(out / STARTED)
        )
        if made != wanted:
            raise UserError(f"{out} holds a different corpus ({made}): choose another --out or delete it")
    elif any(path.name != LOCK for path in out.iterdir()):
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
        UserError: An option is out of range, or the folder holds something else.
    """
    check_ranges(config)
    with locked(out):
        return _generate(out, config)


def _generate(out: Path, config: Config) -> Path:
    made = settings(config)
    if check_folder(out, made):
        (out / STARTED).unlink(missing_ok=True)  # a kill may have left it
        print(f"{out}: complete, nothing to do")
        return out
    write_json(out / STARTED, made)
    n, videos = make_stills(out, config) if config.stills else make_release(out, config)
    write_header(
        out,
        HEADER,
        kind=KIND,
        schema=SCHEMA,
        made_by="synthwild/run.py",
        config=made,
        parents={},
        counts=n,
        videos=videos,
    )
    (out / STARTED).unlink()
    print(f"{out}: " + ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in n.items()))
    return out


def make_stills(out: Path, config: Config) -> tuple[dict[str, int], dict[str, Any]]:
    """Write pictures of single faces; returns the header's counts and no videos."""
    from synthwild import stills  # needs the extra `render`

    assert config.model is not None
    with progress_bar(total=config.stills, unit="picture", desc="synthwild stills") as bar:
        for done in stills.write_stills(out, config.model, config.skins, config.stills, config.seed, config.workers):
            bar.update(done)
    return {"pictures": config.stills, "people": -(-config.stills // stills.PER_PERSON)}, {}


def make_release(out: Path, config: Config) -> tuple[dict[str, int], dict[str, Any]]:
    """Write the videos, their labels and lists; returns the header's counts and videos."""
    from synthwild import release  # heavy, and `--help` does not need it

    figure: release.Figure = release.drawn_figure
    if config.model is not None:
        from synthwild import render  # needs the extra `render`

        figure = partial(render.rendered_figure, config.model, config.skins)
    videos = plan(config.size, config.seed, config.leaky)
    frames = sum(video.frames for video in videos)
    with progress_bar(total=frames, unit="frame", desc=f"synthwild {config.size}") as bar:
        for video in release.make_videos(out, videos, config.workers, figure, config.sound):
            bar.update(video.frames)
    release.write_lists(out, videos)
    if config.model is not None:
        release.write_intensities(out, videos, figure)
    return count(videos), {video.name: describe(video) for video in videos}


def main() -> None:
    """Read the command line and write the corpus."""
    config = tyro.cli(Config, description=__doc__)
    generate(config.out, config)


if __name__ == "__main__":
    guarded(main)
