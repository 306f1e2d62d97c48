"""Valence and arousal, expression and action units for every frame of a video: `from wildaffect import Predictor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wildaffect.inference.hub import push_to_hub as push_to_hub
    from wildaffect.inference.predictor import Predictor as Predictor

    __version__: str

__all__ = ["Predictor", "__version__", "push_to_hub"]


def __getattr__(name: str) -> Any:
    """Import what loads torch on first use, and look the version up only when it is asked for."""
    if name == "Predictor":
        from wildaffect.inference.predictor import Predictor

        return Predictor
    if name == "push_to_hub":
        from wildaffect.inference.hub import push_to_hub

        return push_to_hub
    if name == "__version__":
        from importlib.metadata import version

        return version("wildaffect")
    raise AttributeError(f"module 'wildaffect' has no attribute {name!r}")
