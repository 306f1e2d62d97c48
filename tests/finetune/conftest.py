"""The corpus for the tests of stage 2, made once."""

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import Once
from tests.finetune.corpus import make_encoder, make_labels, make_store


class Corpus(NamedTuple):
    """Where everything is."""

    faces: Path
    labels: Path
    encoder: Path


@pytest.fixture(scope="session")
def corpus(once: Once) -> Corpus:
    def make(root: Path) -> None:
        make_store(root / "faces")
        make_labels(root / "labels")
        make_encoder(root / "encoder")

    root = once("finetune", make)
    return Corpus(root / "faces", root / "labels", root / "encoder")
