"""Feature extraction: `accelerate launch features/run.py --encoder ENC --faces STORE --out CACHE`.

Sound: `python features/run.py --audio logmel --source VIDEOS --faces STORE --out CACHE`.
"""

from typing import Any

import tyro

from checkpoints.errors import guarded
from features.settings import Extract


def main(config: Extract) -> dict[str, Any]:
    """Extract features; see :mod:`features.extract` and :mod:`features.extract_sound`, which load torch."""
    config.check()
    if config.audio:
        from features.extract_sound import extract_sound

        return extract_sound(config)
    from features.extract import extract

    return extract(config)


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Extract, description=__doc__)))
