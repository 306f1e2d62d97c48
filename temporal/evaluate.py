"""Official scores: `python temporal/evaluate.py --task va --predictions FILE --labels DIR [--json F] [--report F]`."""

from typing import Any

import tyro

from checkpoints.errors import guarded
from temporal.settings import Evaluate


def main(config: Evaluate) -> dict[str, Any]:
    """Score predictions; see :func:`temporal.scored.score_files`, which loads torch."""
    from temporal.scored import score_files

    return score_files(config)


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Evaluate, description=__doc__)))
