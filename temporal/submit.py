"""Write and validate challenge files.

Write: `python temporal/submit.py --heads RUN... --features CACHE... --example EXAMPLE --out FILE`
Check: `python temporal/submit.py --check FILE --example EXAMPLE`
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from checkpoints.errors import UserError, guarded


@dataclass(frozen=True, kw_only=True)
class Submit:
    """Write a challenge file from heads and cached features, or validate one from any source (--check)."""

    example: Path
    """Official example file. It lists the frames in order, and its header gives the task (VA, EXPR, AU, MTL)."""
    heads: tuple[Path, ...] = ()
    """Runs or head directories. The values of several heads are averaged; a run with folds has several heads."""
    features: tuple[Path, ...] = ()
    """Feature caches of the test videos. Each head reads the caches that it was trained on."""
    out: Path | None = None
    """Challenge file to write."""
    check: Path | None = None
    """Challenge file to validate. The exit status is 0 if it is valid; otherwise 2, with the first wrong line."""


def main(config: Submit) -> dict[str, Any]:
    """Write or check a challenge file; see :mod:`temporal.submission`, which loads torch."""
    from temporal.submission import check_submission, write_submission

    if config.check is not None:
        return check_submission(config.check, config.example)
    if not config.heads or not config.features or config.out is None:
        raise UserError("to write a challenge file, pass --heads, --features and --out; to validate one, --check FILE")
    return write_submission(config.out, config.heads, config.features, config.example)


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Submit, description=__doc__)))
