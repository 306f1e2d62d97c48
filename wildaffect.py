"""The console command `wildaffect`, and the door for Python: `from wildaffect import Predictor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from checkpoints.errors import guarded

if TYPE_CHECKING:
    from inference.predictor import Predictor as Predictor

__all__ = ["Predictor", "main"]


def __getattr__(name: str) -> Any:
    """Import `Predictor` when it is asked for: it brings torch along."""
    if name == "Predictor":
        from inference.predictor import Predictor

        return Predictor
    raise AttributeError(f"module 'wildaffect' has no attribute {name!r}")


def main() -> None:
    """Run the console command."""
    guarded(_main)


def _main() -> None:
    from tyro.extras import subcommand_cli_from_dict

    from inference.app import App
    from inference.doctor import Doctor
    from inference.export import Export
    from inference.run import Predict

    command = subcommand_cli_from_dict(
        {"predict": Predict, "app": App, "export": Export, "doctor": Doctor},
        prog="wildaffect",
        description="Valence and arousal, expression and action units of every frame of your clips.",
    )
    command.run()


if __name__ == "__main__":
    main()
