"""A fine-tuned run on other labelled faces: `python finetune/evaluate.py --run RUN --faces STORE --labels LABELS`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from checkpoints.errors import guarded
from checkpoints.ranges import check_ranges


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score a run of finetune/run.py on faces that it was not trained on."""

    run: Path
    """Run directory with its encoder and classifier."""
    faces: Path
    """Faces store."""
    labels: Path
    """Labels, as for finetune/run.py."""
    split: Literal["Train_Set", "Validation_Set", "all"] = "Validation_Set"
    """Which of the labels' splits; all: every split, and labels without any."""
    class_map: Path | None = None
    """See finetune/run.py."""
    allow_leak: bool = False
    """Score videos whose labels the run learnt from too."""
    json: Path | None = None
    """Where to write the scores."""
    batch_size: int = 256
    """Pictures per forward pass."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic; auto: bf16 where the hardware has it."""
    workers: int = 1
    """Processes that decode pictures; 0: none."""


def main(config: Evaluate) -> dict[str, Any]:
    """Score a run; see :func:`finetune.scoring.score_run`, which loads torch."""
    check_ranges(config)
    from finetune.scoring import score_run

    return score_run(
        config.run,
        config.faces,
        config.labels,
        split=config.split,
        class_map=config.class_map,
        allow_leak=config.allow_leak,
        out=config.json,
        batch_size=config.batch_size,
        precision=config.precision,
        workers=config.workers,
    )


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Evaluate, description=__doc__)))
