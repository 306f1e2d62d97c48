"""Extraction is tested on the corpus of stage 2."""

from tests.finetune.conftest import corpus

__all__ = ["corpus"]
