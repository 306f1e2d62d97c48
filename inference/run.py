"""Predict on clips: `python inference/run.py CLIP... --heads RUN... --out DIR`, also `wildaffect predict`."""

from __future__ import annotations

import errno
import shutil
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from checkpoints.errors import UserError, guarded

if TYPE_CHECKING:
    from tqdm import tqdm

    from inference.predictor import Predictor, Progress
    from preprocessing.sources import Item

HEADER = "predictions.json"
KIND = "clip predictions"
SCHEMA = 1
WORK = ".work"


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Predict valence, arousal, expression and action units of every frame of clips.

    For each clip OUT/<clip name>/ gets predictions.csv and predictions.parquet (one row per frame and person),
    plot.png, annotated.mp4 and report.html. Clips that are done are passed over; an interrupted command goes on.
    """

    clips: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Videos, pictures, or folders of them."""
    out: Path
    """Where the clips' folders go."""
    heads: tuple[Path, ...] = ()
    """Runs of stage 3, head directories or bundles; none: those of $WILDAFFECT_HEADS or of checkpoints/default.
    Heads of one task are averaged."""
    device: str = "auto"
    """cpu, cuda, ...; auto: a GPU where there is one."""
    batch_size: int = 64
    """Faces per forward pass of the encoder."""
    runtime: Literal["torch", "onnx"] = "torch"
    """onnx: compute with the graphs of a bundle made by `wildaffect export --onnx`."""
    annotate: bool = True
    """Write annotated.mp4, which takes about as long as all the rest."""

    def run(self) -> None:
        """Predict all clips; a clip that cannot be read does not stop the others.

        Raises:
            UserError: At the end, when there were such clips.
        """
        from inference.clips import list_clips

        clips = list_clips(self.clips)
        import av

        from inference.predictor import Predictor  # torch: not before the clips are known to be there

        predictor = Predictor(self.heads, device=self.device, batch_size=self.batch_size, runtime=self.runtime)
        failed = []
        for number, clip in enumerate(clips, 1):
            folder = self.out / clip.video
            try:
                with Bars(f"[{number}/{len(clips)}] {clip.video}") as progress:
                    outcome = predict_clip(predictor, clip, folder, annotate=self.annotate, progress=progress)
            except (UserError, OSError, av.FFmpegError) as error:
                if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                    raise UserError(f"no room is left for {folder}: make some, and the same command goes on") from None
                said = str(error) if isinstance(error, UserError) else f"{clip.path}: {error}"  # names the file
                failed.append(said)
                print(f"[{number}/{len(clips)}] {said}", file=sys.stderr, flush=True)
                continue
            print(f"[{number}/{len(clips)}] {folder}: {outcome}", flush=True)
        if predictor.models.synthetic:
            from inference.honesty import SYNTHETIC

            print(f"warning: {SYNTHETIC}", flush=True)
        if failed:
            raise UserError(f"{len(failed)} of {len(clips)} clips could not be read: {'; '.join(failed)}")


@dataclass(frozen=True)
class Outcome:
    """What `predict_clip` did.

    Attributes:
        facts: What the clip is like, as in the header.
        seconds: Stage to the seconds it took; empty if the clip was done already.
    """

    facts: dict[str, Any]
    seconds: dict[str, float]

    def __str__(self) -> str:
        """One line for the one who waited."""
        frames, people = self.facts["frames"], self.facts["people"]
        if not self.seconds:
            return f"done already ({frames} frames)"
        total = sum(self.seconds.values())
        factor = f", {total / self.facts['seconds']:.2f} x real time" if self.facts["seconds"] else ""
        stages = ", ".join(f"{name} {value:.1f}" for name, value in self.seconds.items())
        return (
            f"{frames} frames, {self.facts['with_face']:.0%} with a face, {people} "
            f"{'person' if people == 1 else 'people'}; {total:.1f} s{factor} ({stages})"
        )


def predict_clip(
    predictor: Predictor, clip: Item, folder: Path, *, annotate: bool = True, progress: Progress | None = None
) -> Outcome:
    """Write everything about one clip into a folder; a clip that is done already is left as it is.

    Raises:
        UserError: The clip cannot be read.
    """
    import time

    from checkpoints.artifact import file_hash, write_header
    from inference.annotate import annotate_clip
    from inference.clip_page import write_report
    from inference.honesty import credit, facts_of, warnings_of
    from inference.plots import overview
    from inference.table import write_table
    from report.page import png

    parents = {"clip": file_hash(clip.path), "heads": predictor.models.fingerprint}
    config = {"annotate": annotate}
    done = finished(folder, parents, config)
    if done is not None:
        return Outcome(done["facts"], {})
    clock = [("", time.perf_counter())]

    def mark(name: str) -> None:
        clock.append((name, time.perf_counter()))

    begin(folder, parents)
    store, problems = predictor.find_faces(clip, folder / WORK / "faces", progress)
    mark("faces")
    table = predictor.predict_faces(store, clip.video, progress)
    mark("encoder and heads")
    facts = facts_of(table)
    warnings = warnings_of(predictor.models, facts, problems)
    origin = credit(predictor.models)
    write_table(table, folder / "predictions.csv")
    write_table(
        table.replace_schema_metadata({"heads": origin, "warnings": "\n".join(warnings)}),
        folder / "predictions.parquet",
    )
    title = f"{clip.video}{' (heads trained on drawn faces)' if predictor.models.synthetic else ''}"
    (folder / "plot.png").write_bytes(png(overview(table, "", title, origin)))
    mark("tables and plot")
    if annotate and clip.kind == "video":
        drawn = predictor.models.synthetic
        annotate_clip(clip.path, table, folder / "annotated.mp4", synthetic=drawn, comment=origin, progress=progress)
        mark("annotated video")
    write_report(folder / "report.html", clip.video, table, store, predictor.models, facts, warnings)
    mark("report")
    write_header(
        folder,
        HEADER,
        kind=KIND,
        schema=SCHEMA,
        made_by="predict",
        config=config,
        parents=parents,
        facts=facts.as_dict(),
        heads=predictor.models.sources,
        synthetic=predictor.models.synthetic,
        warnings=warnings,
    )
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return Outcome(facts.as_dict(), {name: end - start for (_, start), (name, end) in pairwise(clock)})


def finished(folder: Path, parents: dict[str, str], config: dict[str, Any]) -> dict[str, Any] | None:
    """The header of a clip's folder if it was made of exactly this."""
    from checkpoints.artifact import read_header

    if not (folder / HEADER).exists():
        return None
    header = read_header(folder, HEADER, kind=KIND, schema=SCHEMA)
    return header if (header["parents"], header["config"]) == (parents, config) else None


def begin(folder: Path, parents: dict[str, str]) -> None:
    """Prepare a clip's folder; keep the faces of an interrupted run of the same clip.

    Raises:
        UserError: The folder holds something else.
    """
    from checkpoints.artifact import read_json, write_json

    work = folder / WORK
    if folder.is_dir() and any(folder.iterdir()) and not work.exists() and not (folder / HEADER).exists():
        raise UserError(f"{folder} holds other files and no predictions: choose another --out")
    (folder / HEADER).unlink(missing_ok=True)
    marker = work / "clip.json"
    if not marker.exists() or read_json(marker) != parents["clip"]:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        write_json(marker, parents["clip"])


class Bars:
    """Shows the steps of a clip as progress bars, where somebody watches."""

    def __init__(self, name: str) -> None:
        self.name, self.step = name, ""
        self.bar: tqdm[Any] | None = None

    def __enter__(self) -> Progress:
        return self._show

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def _show(self, step: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if step != self.step:
            self.__exit__()
            self.step = step
            self.bar = tqdm(
                desc=f"{self.name}: {step}",
                total=total or None,
                unit=" pictures",
                leave=False,
                disable=not sys.stderr.isatty(),
            )
        assert self.bar is not None
        self.bar.update(done - self.bar.n)


def main() -> None:
    """Read the command line and predict."""
    tyro.cli(Predict).run()


if __name__ == "__main__":
    guarded(main)
