"""Builds the wheel, installs it into an empty environment, and runs the README's commands there.

    python tests/wheel.py --work FOLDER

Takes minutes and, where nothing is cached, gigabytes of downloads: run by hand before a release, not by the test suite.
Commands are shrunk as in the tests of the documentation, and started as modules, since the repository is not there.
"""

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from tests.docs.commands import ROOT, commands_of, script_of, section, with_options
from tests.docs.test_commands import SHALLOW, SMALL


@dataclass(frozen=True)
class Wheel:
    """Build, install, run."""

    work: Path
    """An empty folder; the environment and everything the commands write go there."""


def main(config: Wheel) -> None:
    """Build, install, and run every command of the README but `make` and the page."""
    work = config.work.resolve()
    if work.exists() and any(work.iterdir()):
        sys.exit(f"error: {work} is not empty")
    work.mkdir(parents=True, exist_ok=True)
    python, uv = work / "env" / "bin" / "python", Path(sys.executable).parent / "uv"
    run([uv, "build", "-q", "--wheel", "--out-dir", work / "dist", ROOT], work)
    (wheel,) = (work / "dist").glob("*.whl")
    run([uv, "venv", "-q", work / "env"], work)
    install = [uv, "pip", "install", "-q", "--python", python, "--no-deps"]
    run([*install, "-r", ROOT / "requirements.lock"], work)
    run([*install, wheel], work)
    where = run([python, "-c", "import pretrain, wildaffect; print(pretrain.__path__[0], wildaffect.__file__)"], work)
    assert str(ROOT) not in where, f"the repository is still in the way: {where}"
    run([work / "env" / "bin" / "wildaffect", "doctor"], work)

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    heads = [words for words in commands_of(section(text, "The stages")) if words[:2] == ["python", "temporal/run.py"]]
    for words in commands_of(section(text, "The stages")):
        start(words, work)
    for task in ("expr", "au"):  # "likewise", says the README
        start([task if word == "va" else word.replace("runs/va", f"runs/{task}") for word in heads[0]], work)
    (work / "runs" / "demo").symlink_to(work / "runs")
    clip = sorted((work / "data" / "synthwild" / "release" / "videos").rglob("*.mp4"))[0]
    (work / "clip.mp4").symlink_to(clip)
    for words in commands_of(section(text, "Your own video")):
        start([*words[:2], "--help"] if words[1] == "app" else words, work)
    assert (work / "predictions" / "clip" / "report.html").exists()
    print(f"{wheel.name}: every command of the README ran in {work}")


def start(words: list[str], work: Path) -> None:
    """Run one command of the README with the environment's programs, a script as a module."""
    found = script_of(words)
    assert found is not None, shlex.join(words)
    script, arguments = found
    name = script.relative_to(ROOT).as_posix()
    bin_ = work / "env" / "bin"
    if name == "wildaffect/cli.py":
        run([bin_ / "wildaffect", *arguments], work)
        return
    options = {key: value for key, value in SMALL.get(name, {}).items() if key != "--crops"}
    if name == "temporal/run.py":
        options |= SHALLOW["ours"]
    module = ["-m", name.removesuffix(".py").replace("/", ".")]
    launcher = [bin_ / "accelerate", "launch", "--cpu", "--num_processes", "1"]
    program = launcher if words[0] == "accelerate" else [bin_ / "python"]
    run([*program, *module, *with_options(arguments, options)], work)


def run(command: list[str | Path], work: Path) -> str:
    """Run a program outside the repository; show what it says only if it fails."""
    words = [str(word) for word in command]
    print("$", shlex.join(words), flush=True)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(words, cwd=work, env=clean, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\nended with status {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main(tyro.cli(Wheel, description=__doc__))
