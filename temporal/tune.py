"""Choose smoothing, thresholds and ensemble weights: `python temporal/tune.py --heads RUN... --features CACHE... ...`.

The validation videos choose, in nested folds, so that what the choice is worth is measured on videos that did not make
it. OUT gets copies of the heads with what they chose, for `submit.py`, `evaluate.py` and `wildaffect predict`.
"""

from typing import Any

import tyro

from checkpoints.errors import guarded
from temporal.settings import Tune


def main(config: Tune) -> dict[str, Any]:
    """Tune heads; see :func:`temporal.tuning.tune`, which loads torch."""
    from temporal.tuning import tune

    return tune(config)


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Tune, description=__doc__)))
