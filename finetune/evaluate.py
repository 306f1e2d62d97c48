"""A fine-tuned run on other labelled faces: `python finetune/evaluate.py --run RUN --faces STORE --labels LABELS`."""

from typing import Any

import tyro

from checkpoints.errors import guarded
from checkpoints.ranges import check_ranges
from finetune.settings import Evaluate


def main(config: Evaluate) -> dict[str, Any]:
    """Score a run; see :func:`finetune.scoring.score_run`, which loads torch."""
    check_ranges(config)
    from finetune.scoring import score_run

    return score_run(config)


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Evaluate, description=__doc__)))
