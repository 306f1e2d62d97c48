"""Builds the wheel, installs it into an empty environment with plain pip, and runs the README's commands there.

    python -m tests.wheel --out dist

Start it as a module: as a script, `tests/features` would shadow the package of that name. It needs the network and
takes minutes, so `make wheel` runs it before a release and the test suite does not; the suite installs the wheel
without its dependencies (tests/test_install.py). The commands are shortened as in the tests of the documentation, and
started as modules because the repository is not there.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from tests.docs.commands import ROOT, commands_of, script_of, section, with_options
from tests.docs.test_commands import SHALLOW, SMALL

NOT_SHIPPED = "synthwild"


@dataclass(frozen=True)
class Config:
    """Build the wheel, install it and run it."""

    out: Path
    """Folder for the wheel."""
    keep: Path | None = None
    """An empty folder for the environment and the commands' results; if not given, they are deleted at the end."""


def main(config: Config) -> None:
    """Run every command of the README except `make` and the web page."""
    wheel = build_wheel(config.out.resolve())
    if config.keep is None:
        with tempfile.TemporaryDirectory(prefix="wildaffect-wheel-") as folder:
            check(wheel, Path(folder))
    else:
        config.keep.mkdir(parents=True, exist_ok=True)
        if any(config.keep.iterdir()):
            sys.exit(f"error: {config.keep} is not empty")
        check(wheel, config.keep.resolve())
    print(f"{wheel}: installed, and every command of the README ran")


def build_wheel(out: Path) -> Path:
    """Build the wheel into a folder."""
    with tempfile.TemporaryDirectory() as folder:
        run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], ROOT)
        (wheel,) = Path(folder).glob("*.whl")
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(wheel, out))


def check(wheel: Path, work: Path) -> None:
    """Install the wheel below `work` and run the README's commands there."""
    venv.create(work / "env", with_pip=True)
    python, wildaffect = work / "env" / "bin" / "python", work / "env" / "bin" / "wildaffect"
    run([python, "-m", "pip", "install", "-q", f"{wheel}[app,export]"], work)
    run([python, "-m", "pip", "check"], work)
    where = run([python, "-c", "import pretrain, wildaffect; print(pretrain.__path__[0], wildaffect.__file__)"], work)
    assert str(ROOT) not in where, f"the repository is still in the way: {where}"
    print(run([wildaffect, "doctor"], work))

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    stages = [words for words in commands_of(section(text, "Training on Aff-Wild2")) if script_of(words)]
    for words in stages:
        start(words, work)
    (head,) = (words for words in stages if words[:2] == ["python", "temporal/run.py"])
    for task in ("expr", "au"):  # the README says: a head per task
        start([task if word == "va" else word.replace("runs/va", f"runs/{task}") for word in head], work)
    (work / "runs" / "demo").symlink_to(work / "runs")
    clip = sorted((work / "data" / "synthwild" / "release" / "videos").rglob("*.mp4"))[0]
    (work / "clip.mp4").symlink_to(clip)
    for words in commands_of(section(text, "Your own video")):
        start([*words[:2], "--help"] if words[1] in ("app", "live") else words, work)
    assert (work / "predictions" / "clip" / "report.html").exists()


def start(words: Sequence[str], work: Path) -> None:
    """Run one command of the README with the environment's programs, a script as a module."""
    found = script_of(words)
    assert found is not None, shlex.join(words)
    script, arguments = found
    name = script.relative_to(ROOT).as_posix()
    programs = work / "env" / "bin"
    if name == "wildaffect/cli.py":
        run([programs / "wildaffect", *arguments], work)
        return
    options = {key: value for key, value in SMALL.get(name, {}).items() if key != "--crops"}
    if name == "temporal/run.py":
        options |= SHALLOW["ours"]
    arguments = with_options(arguments, options)
    if name.startswith(f"{NOT_SHIPPED}/"):
        run([sys.executable, script, *arguments], work)
        return
    launcher = [programs / "accelerate", "launch", "--cpu", "--num_processes", "1"]
    program = launcher if words[0] == "accelerate" else [programs / "python"]
    run([*program, "-m", name.removesuffix(".py").replace("/", "."), *arguments], work)


def run(command: Sequence[str | Path], work: Path) -> str:
    """Run a program in a folder, without the caller's Python variables; what it prints is shown only if it fails."""
    words = [str(word) for word in command]
    print("$", shlex.join(words), flush=True)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(words, cwd=work, env=clean, capture_output=True, text=True, check=False)
    assert not done.returncode, f"{shlex.join(words)} ended with {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
