"""Fixtures that several test folders use."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from accelerate.utils import LoggerType
from hypothesis import HealthCheck, settings

from synthwild.run import Config, generate
from tests.figures import figures_left_out

# A busy machine is no fault, and the fixtures that properties use may be shared between examples.
UNCHECKED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("suite", deadline=None, suppress_health_check=UNCHECKED)
settings.load_profile("suite")

LONG = ("test_commands.py", "test_demo.py", "test_starter.py", "test_faults.py", "test_on_ray.py", "test_templates.py")
"""Files of few long tests. They come first, or one process would work on the last of them while the other is idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Function (name, make) -> folder that `make` has filled, once for all workers of this run; read only."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = root / "once" / name, root / "once" / f"{name}.done"
        folder.mkdir(parents=True, exist_ok=True)
        with (root / "once" / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                make(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def synthwild_tiny(once: Once) -> Path:
    """A SynthWild corpus of size tiny (release/, answers/, unlabelled/, synthwild.json); read only."""
    return once("synthwild", lambda folder: generate(folder / "tiny", Config(size="tiny"))) / "tiny"


@pytest.fixture(autouse=True)
def undrawn() -> Iterator[None]:
    """Figures are left out, except of runs that modules share, whose fixtures come first, and in `report`'s tests."""
    with figures_left_out():
        yield


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
