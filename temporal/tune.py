"""Choose smoothing, thresholds and ensemble weights: `python temporal/tune.py --heads RUN... --features CACHE... ...`.

The validation videos choose, in nested folds, so that what the choice is worth is measured on videos that did not make
it. OUT gets copies of the heads with what they chose, for `submit.py`, `evaluate.py` and `wildaffect predict`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from checkpoints.errors import guarded


@dataclass(frozen=True, kw_only=True)
class Tune:
    """Choose smoothing, AU thresholds and what each head counts, on videos that the heads have not seen."""

    heads: tuple[Path, ...]
    """Runs or head directories whose average is tuned; a run with folds or seeds has several heads."""
    features: tuple[Path, ...]
    """Feature caches of the validation videos. Each head reads the caches that it was trained on."""
    labels: Path
    """Labels with a validation split, such as the release."""
    out: Path
    """Folder for the tuned heads and `tuning.json`."""
    folds: int = 5
    """Folds of recordings: each is scored with what the others chose. At least three."""
    allow_leak: bool = False
    """Also use videos whose labels taught or chose the encoder or the heads: what is gained then looks too good."""


def main(config: Tune) -> dict[str, Any]:
    """Tune heads; see :func:`temporal.tuning.tune`, which loads torch."""
    from temporal.tuning import tune

    return tune(config)


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Tune, description=__doc__)))
