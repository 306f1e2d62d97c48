"""Turns a user's clip into a faces store, with the code of `preprocessing`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from checkpoints.errors import UserError
from preprocessing.detect import Detector
from preprocessing.faces import HEADER, FacesStore, read_store_header
from preprocessing.items import Item
from preprocessing.shard import Settings, make_shard
from preprocessing.sources import find_items, make_groups
from preprocessing.video import read_times
from preprocessing.write_faces import finish_store
from wildaffect.inference.progress import Progress

MADE_BY = "inference"


def list_clips(paths: Sequence[Path], *, crops: bool = False) -> tuple[list[Item], list[str]]:
    """List the videos, pictures and folders of frames in files and folders.

    Args:
        paths: The files and folders.
        crops: The pictures already are faces.

    Returns:
        The clips, each with a unique name that can be used as a folder name; and what is left out, with the reason.

    Raises:
        UserError: A path does not exist or contains no clip.
    """
    if not paths:
        raise UserError("no clip was given: pass video files, pictures, or folders of them")
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} does not exist: pass video files, pictures, or folders of them")
    items, problems = find_items([str(path) for path in paths], crops=crops, together=False)
    # Of a release, only what is there: rows for what it lists and nobody can read are for challenge files.
    clips = [
        replace(item, length=0) for item in items if item.kind != "table" and (item.path.exists() or not item.subjects)
    ]
    tables = dict.fromkeys(item.name for item in items if item.kind == "table")
    left_out = [f"{problem['source']} {problem['problem']}" for problem in problems if not problem["video"]]
    left_out += [f"{name} is left out: it is a table; run preprocessing on it" for name in tables]
    if not clips:
        raise UserError(f"{', '.join(map(str, paths))} contains no video or picture{'; '.join(['', *left_out])}")
    return clips, left_out


def length_of(clip: Item) -> int:
    """Number of frames that a clip seems to have, without decoding them; 0 if it cannot be read."""
    if clip.kind == "video":
        return len(read_times(clip.path))
    return len(list(clip.path.iterdir())) if clip.path.is_dir() else 1


def find_faces_of(
    clip: Item, path: Path, detector: Detector | None, settings: Settings, *, progress: Progress | None = None
) -> tuple[FacesStore, list[str]]:
    """Find, track and align the faces of one clip, and write them to the store `path`. Ready crops need no detector.

    A store that is finished already and was made with the same settings is used as it is.

    Returns:
        The store, and the problems with the clip, one line each.

    Raises:
        UserError: Nothing in the clip can be read.
    """
    header = path / HEADER
    if header.exists():
        made = read_store_header(path)
        if made["made_by"].endswith(MADE_BY) and made["config"] != settings.as_dict():
            header.unlink()  # an interrupted run with other heads
    if not header.exists():
        (group,) = make_groups([clip])
        path.mkdir(parents=True, exist_ok=True)
        total, done = length_of(clip) if progress else 0, 0  # reads through a video

        def searched(frames: int) -> None:
            nonlocal done
            done += frames
            if progress:
                progress("finding faces", done, total)

        searched(0)
        log = make_shard(path, group, settings, detector, searched=searched)
        if not log["frames"]:
            reason = "; ".join(problem["problem"] for problem in log["problems"]) or "holds no frame"
            raise UserError(f"{clip.path} {reason}")
        problems = [problem for problem in log["problems"] if problem["problem"] != "no face found"]
        finish_store(
            path,
            made_by=MADE_BY,
            config=settings.as_dict(),
            image_size=settings.size,
            problems=problems,
            framing=settings.framing,
        )
    store = FacesStore(path)
    return store, [problem["problem"] for problem in store.header["problems"]]
