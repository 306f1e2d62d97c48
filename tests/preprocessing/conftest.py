from pathlib import Path

import pytest

from preprocessing.run import Config, run
from tests.conftest import Once


@pytest.fixture(scope="session")
def crops(synthwild_tiny: Path, once: Once) -> Path:
    """The store of a release's crops; read only."""
    pytest.importorskip("facenet_pytorch")
    source = [str(synthwild_tiny / "release")]
    return (
        once("crops", lambda folder: run(Config(source=source, out=folder / "store", crops=True, workers=1))) / "store"
    )
