"""The options of scoring a fine-tuned run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score a run of finetune/run.py on faces used neither to train nor to select it."""

    run: Path
    """Run directory with its encoder and classifier."""
    faces: Path
    """Faces store."""
    labels: Path
    """Labels, as for finetune/run.py."""
    split: Literal["train", "validation", "test", "all"] = "validation"
    """Which of the labels' splits; all: every split, and labels without any."""
    class_map: Path | None = None
    """See finetune/run.py."""
    allow_leak: bool = False
    """Also score videos whose labels taught or chose the run."""
    json: Path | None = None
    """Where to write the scores."""
    batch_size: int = 256
    """Pictures per forward pass."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic; auto: bf16 where the hardware has it."""
    workers: int = 1
    """Processes that decode pictures; 0: none."""
