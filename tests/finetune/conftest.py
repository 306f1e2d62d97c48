"""The corpus for the tests of stage 2, made once."""

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.finetune.corpus import make_encoder, make_labels, make_store


class Corpus(NamedTuple):
    """Where everything is."""

    faces: Path
    labels: Path
    encoder: Path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("finetune")
    return Corpus(make_store(root / "faces"), make_labels(root / "labels"), make_encoder(root / "encoder"))
