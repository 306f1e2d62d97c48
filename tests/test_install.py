"""The installed wheel: what it holds, and that foreign modules of the same names are not imported instead."""

import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import wildaffect
from tests.wheel import ROOT, build_wheel, run

ROOMS = {"wildaffect", "preprocessing", "pretrain", "finetune", "features", "temporal", "checkpoints"}
STRANGER = "raise ImportError('this is the module of a stranger')\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory) -> Path:
    """Programs of an environment with the wheel, its dependencies and a package with modules named like our rooms."""
    env = tmp_path_factory.mktemp("install") / "env"
    venv.create(env, with_pip=False)
    python = env / "bin" / "python"
    packages = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], env).strip())
    # The path files of the folder named here are not read, so the editable install in it stays out.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    for name in ("tasks", "training", "report", "inference"):
        (packages / name).mkdir()
        (packages / name / "__init__.py").write_text(STRANGER)
    run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], env)
    return env / "bin"


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A working directory like a user's."""
    desk = tmp_path_factory.mktemp("desk")
    for name in ("checkpoints", "features", "data"):
        (desk / name).mkdir()
    for name in ("tasks", "inference"):
        (desk / f"{name}.py").write_text(STRANGER)
    return desk


def test_the_wheel_holds_the_rooms_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == ROOMS | {f"wildaffect-{wildaffect.__version__}.dist-info"}
    assert {Path(name).name for name in names if name.startswith("wildaffect/") and not name.endswith(".py")} == {
        *("py.typed", "page.html", "card.md", "timeline.html", "timeline.js", "example.mp4", "colours.css")
    }


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        (["wildaffect", "--version"], f"wildaffect {wildaffect.__version__}"),
        (["wildaffect", "predict", "--help"], "--heads"),
        (["python", "-c", "from wildaffect import Predictor; print(Predictor.__module__)"], "wildaffect.inference"),
        (["python", "-m", "preprocessing.run", "--help"], "--source"),
        (["python", "-m", "pretrain.run", "--help"], "demo"),
        (["python", "-m", "temporal.run", "--help"], "joint"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_it_runs_among_strangers(programs, desk, command, printed):
    out = run([programs / command[0], *command[1:]], desk)
    assert printed in out


def test_nothing_is_imported_from_the_repository(programs, desk):
    code = f"import {', '.join(ROOMS)}; print({', '.join(f'{room}.__file__' for room in ROOMS)})"
    files = run([programs / "python", "-c", code], desk).split()
    assert all(file.startswith(str(programs.parent)) for file in files)
    with pytest.raises(AssertionError, match="module of a stranger"):
        run([programs / "python", "-c", "import tasks"], desk)


def test_the_check_of_a_full_install_starts():
    assert "--out" in run([sys.executable, "-m", "tests.wheel", "--help"], ROOT)
