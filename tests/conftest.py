"""Fixtures that several test folders use."""

import json
from pathlib import Path

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from accelerate.utils import LoggerType

from synthwild.run import Config, generate


@pytest.fixture(scope="session")
def synthwild_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SynthWild corpus of size tiny (release/, answers/, unlabelled/, synthwild.json); read only."""
    return generate(tmp_path_factory.mktemp("synthwild") / "tiny", Config(size="tiny"))


class Notebook(GeneralTracker):
    """A tracker that writes what it hears to a file."""

    name = "notebook"
    requires_logging_directory = True

    def __init__(self, run_name, logging_dir, **_):
        super().__init__()
        self.file = Path(logging_dir) / "notebook.jsonl"

    @property
    def tracker(self):
        return self.file

    def store_init_configuration(self, values):
        self.log(values, None)

    def log(self, values, step, **_):
        with self.file.open("a") as file:
            file.write(json.dumps([step, values]) + "\n")


@pytest.fixture
def notebook_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracker called tensorboard writes what it hears to `notebook.jsonl`."""
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "tensorboard", Notebook)
    for module in ("accelerate.tracking", "wildaffect.training.launch"):
        monkeypatch.setattr(f"{module}.get_available_trackers", lambda: [LoggerType.TENSORBOARD])
