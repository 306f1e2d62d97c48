"""Feature extraction: `accelerate launch features/run.py --encoder ENC --faces STORE --out CACHE`."""

from typing import Any

import tyro

from checkpoints.errors import guarded
from features.settings import Extract


def main(config: Extract) -> dict[str, Any]:
    """Extract features; see :func:`features.extract.extract`, which loads torch."""
    from features.extract import extract

    return extract(config)


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Extract, description=__doc__)))
