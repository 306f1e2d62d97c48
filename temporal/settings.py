"""The options of scoring predictions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score predictions over all annotated frames together, each frame once."""

    task: Literal["va", "expr", "au", "mtl"]
    """Task to score; mtl: the sum of all three."""
    predictions: Path
    """A challenge file (.txt) from any source, a prediction table (.parquet, .csv) or a folder of tables, or the output
    of `wildaffect predict`. Frames without a face are scored with the values of the nearest frame that has one."""
    labels: Path
    """Folder of official label files (<id>.txt), a release (its validation set is scored), an MTL file or a table."""
    heads: tuple[Path, ...] = ()
    """Heads that made the predictions. They give the AU thresholds, and the videos that they or their encoders learned
    from, which are left out of the score."""
    json: Path | None = None
    """Write the scores to this file."""
    report: Path | None = None
    """Write tables and plots to this HTML file."""
    allow_leak: bool = False
    """Also score videos whose labels the encoder or the head was trained on."""
    rule_clean: bool = False
    """Refuse such videos instead of leaving them out, and refuse encoders trained on another task's labels."""
