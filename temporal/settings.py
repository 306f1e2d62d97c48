"""The options of scoring predictions and of tuning heads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score predictions over all annotated frames together, each frame once."""

    task: Literal["va", "expr", "au", "mtl"]
    """Task to score; mtl: the sum of all three."""
    predictions: Path
    """A challenge file from any source (recognised by its first line), a prediction table (.parquet, .csv), a folder of
    tables, or the output of `wildaffect predict`. Frames without a face are scored with the values of the nearest frame
    that has one."""
    labels: Path
    """Folder of official label files (<id>.txt), a release (`mtl`: its MTL set), an MTL file or folder, or a table."""
    split: Literal["validation", "test"] = "validation"
    """Which split of the labels is scored, if they have splits."""
    class_map: Path | None = None
    """JSON file that says what class names or numbers in the labels mean; see docs/labels.md."""
    heads: tuple[Path, ...] = ()
    """Heads that made the predictions. They give the AU thresholds and the mode filter, and the videos that taught or
    chose them or their encoders, which are left out of the score. Without them nothing is left out."""
    json: Path | None = None
    """Write the scores to this file."""
    report: Path | None = None
    """Write tables and plots to this HTML file."""
    allow_leak: bool = False
    """Also score videos whose labels taught or chose the encoder or the head."""
    rule_clean: bool = False
    """Refuse such videos instead of leaving them out, and refuse encoders that saw another task's labels."""


@dataclass(frozen=True, kw_only=True)
class Tune:
    """Choose smoothing, AU thresholds and what each head counts, on videos that the heads have not seen."""

    heads: tuple[Path, ...]
    """Runs or head directories whose average is tuned; a run with folds or seeds has several heads."""
    features: tuple[Path, ...]
    """Feature caches of the validation videos. Each head reads the caches that it was trained on."""
    labels: Path
    """Labels with a validation split, such as the release."""
    class_map: Path | None = None
    """JSON file that says what class names or numbers in the labels mean; see docs/labels.md."""
    out: Path
    """Folder for the tuned heads and `tuning.json`."""
    folds: int = 5
    """Folds of recordings: each is scored with what the others chose. At least three."""
    allow_leak: bool = False
    """Also use videos whose labels taught or chose the encoder or the heads: the gain then looks too good."""
