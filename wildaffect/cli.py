"""The console command `wildaffect`. Each command loads what it needs when it runs, so that `--help` is quick."""

import json
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.extras import subcommand_cli_from_dict

from checkpoints.errors import UserError, guarded
from checkpoints.ranges import check_ranges

HEADS = (
    "Stage-3 runs, head directories or bundles. Without this option, the heads named by $WILDAFFECT_HEADS are used, or "
    "the starter weights that come with the installation. Heads for the same task are averaged."
)


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Predict valence, arousal, expression and action units for every frame of your clips.

    Each clip gets a folder OUT/CLIP with predictions.csv and predictions.parquet (one row per frame and person),
    plot.png, annotated.mp4 and report.html. Finished clips are skipped, and an interrupted command resumes.
    """

    clips: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Videos, pictures, folders of numbered frames, or folders of all these. What cannot be read is named at the end,
    and the exit status is then 2."""
    out: Path
    """Directory for the clips' folders."""
    heads: Annotated[tuple[Path, ...], tyro.conf.arg(help=HEADS)] = ()
    device: str = "auto"
    """cpu, cuda, ...; auto uses a GPU if there is one."""
    batch_size: int = 64
    """Faces per forward pass of the encoder."""
    runtime: Literal["torch", "onnx"] = "torch"
    """onnx runs the graphs of a bundle made by `wildaffect export --onnx`."""
    prior: str = "stated"
    """How common the expressions are assumed to be: stated (the head's own), trained (as in training), uniform, or a
    JSON file of shares by expression."""
    adapt: Literal["none", "person", "clip"] = "none"
    """person: each person's median over the clip is treated as neutral; clip: the prior is estimated from the clip;
    who is seen for less than a second stays as without it."""
    annotate: bool = True
    """Write annotated.mp4. This takes about as long as everything else together."""

    def run(self) -> None:
        """Predict every clip; see :func:`wildaffect.inference.clip.predict_clips`."""
        check_ranges(self)
        from wildaffect.inference.clips import list_clips

        clips, left_out = list_clips(self.clips)  # before torch is loaded, so that a wrong path is reported at once
        from wildaffect.inference.clip import predict_clips
        from wildaffect.inference.predictor import Predictor

        predictor = Predictor(
            self.heads,
            device=self.device,
            batch_size=self.batch_size,
            runtime=self.runtime,
            prior=self.prior,
            adapt=self.adapt,
        )
        predict_clips(predictor, clips, self.out, annotate=self.annotate, left_out=left_out)


@dataclass(frozen=True, kw_only=True)
class Live:
    """Predict a running video: one line of JSON for every person in every frame, as soon as it is available.

    The keys are the columns of predictions.csv. Frames that a camera takes while one is being predicted are dropped, so
    that no delay builds up. Heads must not look ahead: recipes framewise, stills, ours-causal.
    """

    clip: Annotated[Path | None, tyro.conf.Positional] = None
    """A video in place of the camera; every frame of it is predicted."""
    camera: int = 0
    """Number of the camera."""
    heads: Annotated[tuple[Path, ...], tyro.conf.arg(help=HEADS)] = ()
    device: str = "auto"
    """cpu, cuda, ...; auto uses a GPU if there is one."""

    def run(self) -> None:
        """Say on stderr what the heads are, then write lines until the video ends or nobody reads them."""
        check_ranges(self)
        from checkpoints.reading import need_file

        if self.clip is not None:
            need_file(self.clip, "pass a video, or nothing for the camera")
        from wildaffect.inference.clip_facts import MISUSE, credit, describe_kinds, notes_of
        from wildaffect.inference.live import camera_pictures, newest
        from wildaffect.inference.predictor import Predictor

        predictor = Predictor(self.heads, device=self.device)
        models = predictor.models
        said = [*(f"warning: {note}" for note in notes_of(models)), *describe_kinds(models), credit(models), MISUSE]
        print("\n".join(said), file=sys.stderr, flush=True)
        try:
            for row in predictor.stream(self.clip or newest(camera_pictures(self.camera))):
                print(json.dumps(row), flush=True)
        except BrokenPipeError:  # as in `wildaffect live | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass(frozen=True, kw_only=True)
class App:
    """Open a local web page: upload a clip, watch the annotated video beside the curves, download the tables.

    Everything stays on this machine. The page listens on 127.0.0.1, loads nothing from outside and sends no statistics.
    Uploads are deleted after an hour and when the page is closed.
    """

    heads: Annotated[tuple[Path, ...], tyro.conf.arg(help=HEADS)] = ()
    device: str = "auto"
    """cpu, cuda, ...; auto uses a GPU if there is one."""
    host: str = "127.0.0.1"
    """Address to listen on. With 0.0.0.0 everyone on the network can use the page, without a password."""
    port: int = 7860
    """Port to listen on."""
    browser: bool = True
    """Open the page in the browser of this machine."""
    max_megabytes: int = 500
    """Largest upload."""
    max_minutes: float = 10.0
    """Longest clip."""
    max_waiting: int = 8
    """Clips that may wait in the queue; they are processed one at a time."""

    def run(self) -> None:
        """Serve until Ctrl-C.

        Raises:
            UserError: Gradio is missing, the port is taken, or the heads cannot be loaded.
        """
        check_ranges(self)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an orderly exit, so that uploads are removed
        with tempfile.TemporaryDirectory(prefix="wildaffect-app-") as folder:
            os.environ["GRADIO_TEMP_DIR"] = f"{folder}/cache"
            os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
            os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
            try:
                from wildaffect.inference import web_page  # imports gradio, which reads the variables above
            except ImportError as error:
                raise UserError(f"the web page needs gradio ({error}): pip install 'wildaffect[app]'") from None
            from wildaffect.inference.predictor import Predictor

            limits = web_page.Limits(self.max_megabytes, self.max_minutes, self.max_waiting)
            page = web_page.build(limits, Predictor(self.heads, device=self.device), Path(folder))
            web_page.serve(page, limits, self.host, self.port, browser=self.browser)


@dataclass(frozen=True, kw_only=True)
class Export:
    """Copy heads and their encoders into one directory that can be moved and passed to --heads.

    OUT/heads/NAME/ and OUT/encoders/NUMBER/ are what the stages wrote, OUT/README.md describes them, and
    OUT/bundle.json marks the bundle as complete.
    """

    heads: Annotated[tuple[Path, ...], tyro.conf.arg(help=HEADS)] = ()
    out: Path
    """Bundle to write."""
    onnx: bool = False
    """Also write model.onnx beside each model.safetensors, and compare it with PyTorch on random inputs. To use these
    graphs, predict with --runtime onnx."""

    def run(self) -> None:
        """Write the bundle; see :func:`wildaffect.inference.bundle.write_bundle`."""
        from wildaffect.inference.bundle import write_bundle

        write_bundle(self.heads, self.out, onnx=self.onnx)


@dataclass(frozen=True)
class Doctor:
    """Print versions, devices and precision, whether faces can be detected and videos written, and free disk space."""

    verify: Path | None = None
    """Instead, hash every artifact below this folder again and compare it with its header."""

    def run(self) -> None:
        """Print the findings; a problem is printed, not raised.

        Raises:
            UserError: With `verify`: an artifact is not what its header says.
        """
        if self.verify is not None:
            from wildaffect.inference.verify import verify

            verify(self.verify)
            return
        from wildaffect.inference.installed import print_versions

        print_versions()  # first, because the other checks load these packages
        from wildaffect.inference.doctor import print_findings

        print_findings()


COMMANDS: dict[str, Any] = {"predict": Predict, "live": Live, "app": App, "export": Export, "doctor": Doctor}


def main() -> None:
    """Run the console command."""
    guarded(_main)


def _main() -> None:
    if sys.argv[1:2] == ["--version"]:
        from wildaffect import __version__

        print(f"wildaffect {__version__}")
        return
    subcommand_cli_from_dict(
        COMMANDS,
        prog="wildaffect",
        description="Valence and arousal, expression and action units for every frame of your clips. "
        "`wildaffect --version` prints the version.",
    ).run()


if __name__ == "__main__":
    main()
