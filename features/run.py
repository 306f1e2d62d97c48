"""Feature extraction: `accelerate launch features/run.py --encoder ENC --faces STORE --out CACHE`."""

from typing import Any

import tyro

from checkpoints.errors import guarded
from features.settings import Extract


def main(config: Extract) -> dict[str, Any]:
    """Extract features; see :func:`features.extract.extract`, which loads torch."""
    from features.extract import extract

    return extract(config)


def command_line() -> None:
    """Parse the command line and extract."""
    main(tyro.cli(Extract, description=__doc__))


if __name__ == "__main__":
    guarded(command_line)
