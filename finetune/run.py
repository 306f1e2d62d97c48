"""Stage 2: `accelerate launch finetune/run.py RECIPE --faces STORE --labels LABELS --encoder ENC --out RUN`."""

from typing import Any

import tyro

from checkpoints.errors import guarded
from finetune.recipes import RECIPES, Finetune


def main(config: Finetune) -> dict[str, Any]:
    """Fine-tune an encoder; see :func:`finetune.train.train`, which loads torch."""
    from finetune.train import train

    return train(config)


if __name__ == "__main__":
    guarded(lambda: main(tyro.extras.overridable_config_cli(RECIPES, description=__doc__)))
