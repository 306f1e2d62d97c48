"""Make a stage-1 product small enough to ship: `python pretrain/ship.py RUN --out DIR` (half precision, no state)."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from checkpoints.errors import UserError, guarded


@dataclass(frozen=True)
class Ship:
    """Write a stage-1 encoder and its decoder in half precision."""

    run: tyro.conf.Positional[Path]
    """Run directory or encoder directory of stage 1."""
    out: Path
    """Directory to write."""


def main(config: Ship) -> None:
    """Write the directory.

    Raises:
        UserError: The run was not made by stage 1, or is not finished; or there is an encoder already.
    """
    import torch

    from checkpoints.artifact import read_header
    from checkpoints.encoder import KIND, SCHEMA, encoder_directory
    from pretrain.product import load_mae, write_encoder

    if (config.out / "config.json").exists():
        raise UserError(f"{config.out} holds an encoder already: give another --out, or delete it")
    source = encoder_directory(config.run)
    header = read_header(source, "config.json", kind=KIND, schema=SCHEMA)
    write_encoder(
        config.out,
        load_mae(source),
        decoder=header["decoder"],
        recipe=header["config"],
        parents=header["parents"],
        dtype=torch.float16,
    )
    size = sum(file.stat().st_size for file in config.out.iterdir())
    print(f"{config.out}: {size / 2**20:.2f} MiB")


def command_line() -> None:
    """Parse the command line and write."""
    main(tyro.cli(Ship, description=__doc__))


if __name__ == "__main__":
    guarded(command_line)
