"""Turns one clip into a folder with tables, plot, annotated video and report."""

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import av

from checkpoints.artifact import (
    Header,
    atomic_file,
    combine_hashes,
    file_hash,
    read_header,
    read_json,
    write_header,
    write_json,
)
from checkpoints.errors import FULL, UserError, some
from checkpoints.forms import Name
from checkpoints.lock import LOCK, locked
from preprocessing.items import Item
from wildaffect.inference.clip_facts import Facts
from wildaffect.inference.prediction import Prediction
from wildaffect.inference.predictor import Predictor
from wildaffect.inference.progress import Bars, Progress
from wildaffect.inference.table import write_table
from wildaffect.report.page import png
from wildaffect.tasks.predictions import HEADER, KIND, WORK

SCHEMA = 2
TABLE, CSV, PLOT, VIDEO, REPORT = "predictions.parquet", "predictions.csv", "plot.png", "annotated.mp4", "report.html"


class ClipHeader(Header):
    """Header of the folder of a clip."""

    facts: Annotated[dict[str, Any], Facts]
    warnings: list[str]
    files: dict[Name, str]


def predict_clips(
    predictor: Predictor, clips: Sequence[Item], out: Path, *, annotate: bool = True, left_out: Sequence[str] = ()
) -> None:
    """Predict clips into `out/CLIP`. A clip that cannot be read does not stop the others.

    Raises:
        UserError: Some clips could not be predicted or something was `left_out` (raised after the last clip).
        OSError: The disk is full (raised at once).
    """
    failed = []
    for number, clip in enumerate(clips, 1):
        folder = out / clip.video
        try:
            with Bars(f"[{number}/{len(clips)}] {clip.video}") as progress:
                outcome = predict_clip(predictor, clip, folder, annotate=annotate, progress=progress)
        except (UserError, OSError, av.FFmpegError) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise  # the others would fail too
            message = str(error) if str(clip.path) in str(error) else f"{clip.path}: {error}"
            failed.append(message)
            print(f"[{number}/{len(clips)}] {message}", file=sys.stderr, flush=True)
            continue
        source = "" if clip.video == clip.path.stem else f" ({clip.path})"  # several clips have the same name
        print(f"[{number}/{len(clips)}] {folder}{source}: {outcome}", flush=True)
    if predictor.models.synthetic:
        print(f"warning: {predictor.models.caution}", flush=True)
    if failed:
        left_out = [f"{len(failed)} of {len(clips)} clips could not be predicted: {some(failed, 5)}", *left_out]
    if left_out:
        raise UserError("; ".join(left_out))


@dataclass(frozen=True)
class Outcome:
    """What `predict_clip` did.

    Attributes:
        facts: Facts about the clip, as in the header.
        seconds: Stage -> seconds it took; empty if the clip was finished already.
    """

    facts: dict[str, Any]
    seconds: dict[str, float]

    def __str__(self) -> str:
        """A summary in one line."""
        frames, people = self.facts["frames"], self.facts["people"]
        if not self.seconds:
            return f"done already ({frames:,} frames)"
        total = sum(self.seconds.values())
        factor = f", {total / self.facts['seconds']:.2f} x real time" if self.facts["seconds"] else ""
        stages = ", ".join(f"{name} {value:.1f}" for name, value in self.seconds.items())
        return (
            f"{frames:,} frames, {self.facts['with_face']:.0%} with a face, {people} "
            f"{'person' if people == 1 else 'people'}; {total:.1f} s{factor} ({stages})"
        )


def predict_clip(
    predictor: Predictor, clip: Item, folder: Path, *, annotate: bool = True, progress: Progress | None = None
) -> Outcome:
    """Write everything about one clip to a folder. A clip that is finished already is left as it is.

    Raises:
        UserError: The clip cannot be read, or the folder is being written by another process.
        OSError: The folder cannot be written.
    """
    models = predictor.models
    with locked(folder):
        parents = {"clip": clip_hash(clip.path), "heads": models.fingerprint}
        config = {"annotate": annotate, "prior": models.prior, "adapt": models.adapt}
        done = finished(folder, parents, config)
        if done is not None:
            return Outcome(done["facts"], {})
        begin(folder, parents)
        try:
            return _predict_clip(predictor, clip, folder, parents, config, progress)
        except (UserError, av.FFmpegError) as error:
            if not (isinstance(error, OSError) and error.errno in FULL):
                discard(folder)  # it would fail again: nothing is left to continue from
            raise


def _predict_clip(
    predictor: Predictor,
    clip: Item,
    folder: Path,
    parents: dict[str, str],
    config: dict[str, Any],
    progress: Progress | None,
) -> Outcome:
    models = predictor.models
    clock = [("", time.perf_counter())]

    def mark(name: str) -> None:
        clock.append((name, time.perf_counter()))

    store, problems = predictor.find_faces(clip, folder / WORK / "faces", progress)
    mark("faces")
    source = clip.path if clip.kind == "video" else None
    heard = predictor.hear(store, clip.video, source)
    table = predictor.predict_faces(store, clip.video, progress, heard)
    mark("encoder and heads")
    result = Prediction(clip.video, table, store, models, problems=problems, notes=heard.notes, source=source)
    result.save(folder / TABLE)
    write_table(result.table, folder / CSV)  # the header, written last, has the metadata
    with atomic_file(folder / PLOT) as temporary:
        temporary.write_bytes(png(result.plot()))
    mark("tables and plot")
    if config["annotate"] and source:
        result.save_video(folder / VIDEO, progress)
        mark("annotated video")
    result.report(folder / REPORT)
    mark("report")
    write_header(
        folder,
        HEADER,
        kind=KIND,
        schema=SCHEMA,
        made_by="predict",
        config=config,
        parents=parents,
        **result.metadata,
        files={file.name: file_hash(file) for file in sorted(folder.iterdir()) if file.is_file() and file.name != LOCK},
    )
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return Outcome(result.facts.as_dict(), {name: end - start for (_, start), (name, end) in pairwise(clock)})


def clip_hash(path: Path) -> str:
    """Hash of a clip's file, or of the files of a folder of frames."""
    if path.is_dir():
        return combine_hashes({file.name: file_hash(file) for file in sorted(path.iterdir()) if file.is_file()})
    return file_hash(path)


def finished(folder: Path, parents: dict[str, str], config: dict[str, Any]) -> ClipHeader | None:
    """The header of a clip's folder if it was made from the same clip, heads and options and is whole; else None."""
    if not (folder / HEADER).exists():
        return None
    header = read_clip_header(folder)
    if (header["parents"], header["config"]) != (parents, config):
        return None
    if changed := changed_file(folder, header):
        print(f"{changed} was deleted or changed: the clip is predicted again", flush=True)
        return None
    if (folder / WORK).exists():
        print(f"{folder / WORK} was left by an interrupted run: removed", flush=True)
        shutil.rmtree(folder / WORK, ignore_errors=True)
    return header


def read_clip_header(folder: Path) -> ClipHeader:
    """The header of a clip's folder.

    Raises:
        UserError: There is none.
    """
    return read_header(folder, HEADER, kind=KIND, schema=SCHEMA, form=ClipHeader)


def changed_file(folder: Path, header: ClipHeader) -> Path | None:
    """The first file of a clip's folder that is missing, or not as its header says; None if all are."""
    for name, expected in header["files"].items():
        if not (folder / name).is_file() or file_hash(folder / name) != expected:
            return folder / name
    return None


def check_clip(folder: Path) -> None:
    """Compare the files of a clip's folder with its header.

    Raises:
        UserError: A file was deleted or changed.
    """
    if changed := changed_file(folder, read_clip_header(folder)):
        raise UserError(f"{changed} was deleted or changed: predict the clip again")


def begin(folder: Path, parents: dict[str, str]) -> None:
    """Prepare a clip's folder, and keep the faces that an interrupted run of the same clip found.

    Raises:
        UserError: The folder holds other files, or the predictions of another clip.
    """
    work = folder / WORK
    if (folder / HEADER).exists() and read_clip_header(folder)["parents"].get("clip") != parents["clip"]:
        raise UserError(
            f"{folder} holds the predictions of another clip of this name, or of this clip before it was changed: "
            "choose another --out, or remove that folder"
        )
    found = {path.name for path in folder.iterdir()} - {LOCK}
    if found and not {WORK, HEADER} & found:
        raise UserError(f"{folder} holds other files and no predictions: choose another --out")
    (folder / HEADER).unlink(missing_ok=True)
    marker = work / "clip.json"
    if not marker.exists() or read_json(marker) != parents["clip"]:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        write_json(marker, parents["clip"])


def discard(folder: Path) -> None:
    """Remove what a run that failed wrote to a clip's folder; without a header it would pass for other files."""
    shutil.rmtree(folder / WORK, ignore_errors=True)
    for name in (TABLE, CSV, PLOT, VIDEO, REPORT):
        (folder / name).unlink(missing_ok=True)
