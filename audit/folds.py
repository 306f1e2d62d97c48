"""Folds over the recordings of a release, the same for every task, and what stages 1 and 2 may see for an evaluation.

python audit/folds.py --affwild2 DIR --out FOLDS [--folds 5]
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from checkpoints.errors import guarded
from checkpoints.lock import locked
from checkpoints.ranges import check_ranges


@dataclass
class Config:
    """Write folds, and lists of the recordings that training must leave out for an honest evaluation."""

    affwild2: Path
    """Root of the release, or its annotations."""
    out: Path
    """Folder for `folds.csv` and `leave_out/`."""
    folds: int = 5
    """Number of folds."""
    seed: int = 0
    """Random seed of the folds, like `--seed` of temporal/run.py with `--folds`."""
    identities: Path | None = None
    """CSV with the columns id and identity, if people are known to appear in several videos. Their videos then stay in
    one fold; temporal/run.py does not do this."""


def main() -> None:
    """Write the files and print a comparison of the folds."""
    config = tyro.cli(Config, description=__doc__)
    from audit.fold_files import make_folds  # heavy, and `--help` does not need it

    check_ranges(config)
    with locked(config.out):
        make_folds(config.affwild2, config.out, config.folds, config.seed, config.identities)


if __name__ == "__main__":
    guarded(main)
