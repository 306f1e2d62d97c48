"""The options of feature extraction."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from checkpoints.errors import UserError
from preprocessing.faces import ViewName


@dataclass(frozen=True, kw_only=True)
class Extract:
    """Cache an encoder's features of every frame of a faces store, or those of the sound (--audio).

    Continues where a killed run stopped.
    """

    encoder: str = ""
    """Encoder directory, a run that made one, timm:NAME, the folder of a published timm model, or a preset: dinov3,
    clip, siglip, mae."""
    audio: str = ""
    """Extract sound instead: logmel, or a speech model (folder, or name on the Hugging Face Hub). Needs --source."""
    source: tuple[Path, ...] = ()
    """For --audio: the same --source as for preprocessing/run.py; it must hold the videos."""
    faces: Path
    """Faces store."""
    out: Path
    """Feature cache; with several views, the folder that holds one cache per view."""
    view: tuple[ViewName, ...] = ("full",)
    """Parts of the face; several are extracted in one pass."""
    pooling: Literal["cls", "mean", "cls_mean", "model"] | None = None
    """How tokens become one vector; by default as the encoder was trained."""
    flip: bool = False
    """Average the features of each picture and its mirror image."""
    labels: Path | None = None
    """Expression labels (as for finetune/run.py) to colour the report's map of the features by."""
    class_map: Path | None = None
    """See finetune/run.py."""
    batch_size: int = 256
    """Pictures per forward pass; batches fill across videos."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic; auto: bf16 where the hardware has it."""
    workers: int = 1
    """Picture-decoding workers per process; 0: none."""

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises:
            UserError: Neither or both of `encoder` and `audio` are given, or an option that is for the other one, or
                `class_map` without `labels`.
        """
        if bool(self.encoder) == bool(self.audio):
            raise UserError("pass either --encoder ENC (faces) or --audio logmel|MODEL --source VIDEOS (sound)")
        if self.class_map and self.labels is None:
            raise UserError("--class-map says what the classes of --labels mean: pass --labels too, or leave it out")
        given = {item.name for item in fields(self) if getattr(self, item.name) != item.default}
        wrong = given - {"audio", "source", "faces", "out"} if self.audio else given & {"source"}
        if wrong:
            of, name = ("--encoder", "--audio") if self.audio else ("--audio", "--encoder")
            raise UserError(f"--{min(wrong).replace('_', '-')} is for {of}: leave it out with {name}")
