"""Valence and arousal, expression and action units for every frame of a video: `from wildaffect import Predictor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wildaffect.inference.predictor import Predictor as Predictor

    __version__: str

__all__ = ["Predictor", "__version__"]


def __getattr__(name: str) -> Any:
    """Import `Predictor` on first use, since it loads torch, and look the version up only when it is asked for."""
    if name == "Predictor":
        from wildaffect.inference.predictor import Predictor

        return Predictor
    if name == "__version__":
        from importlib.metadata import version

        return version("wildaffect")
    raise AttributeError(f"module 'wildaffect' has no attribute {name!r}")
