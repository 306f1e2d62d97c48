"""Fixtures that several test folders use."""

from pathlib import Path

import pytest

from synthwild.run import Config, generate


@pytest.fixture(scope="session")
def synthwild_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SynthWild corpus of size tiny (release/, answers/, unlabelled/, synthwild.json); read only."""
    return generate(tmp_path_factory.mktemp("synthwild") / "tiny", Config(size="tiny"))
