"""Stage 1: `accelerate launch pretrain/run.py RECIPE --faces STORE... --out RUN`."""

from typing import Any

import tyro

from checkpoints.errors import guarded
from pretrain.recipes import RECIPES, Pretrain


def main(config: Pretrain) -> dict[str, Any]:
    """Pretrain an encoder; see :func:`pretrain.train.train`, which loads torch."""
    from pretrain.train import train

    return train(config)


if __name__ == "__main__":
    guarded(lambda: main(tyro.extras.overridable_config_cli(RECIPES, description=__doc__)))
