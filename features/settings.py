"""The options of feature extraction."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from preprocessing.faces import ViewName


@dataclass(frozen=True, kw_only=True)
class Extract:
    """Cache an encoder's features of every frame of a faces store; continues where a killed run stopped."""

    encoder: str
    """Encoder directory, a run that made one, timm:NAME, or the folder of a published timm model."""
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
    """Processes per process that decode pictures; 0: none."""
