"""Shell commands in Markdown files: found, and run inside this process, so that torch is imported once."""

import re
import runpy
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCHERS = {"python", "accelerate", "torchrun", "sbatch"}


def blocks_of(text: str) -> list[str]:
    """Fenced blocks of shell commands, also those inside lists."""
    found = re.findall(r"^( *)```(?:sh|bash)\n(.*?)^\1```", text, re.DOTALL | re.MULTILINE)
    return [block for _, block in found]


def commands_of(text: str) -> list[list[str]]:
    """Commands of all blocks, split into words, without comments and line breaks."""
    lines = "\n".join(blocks_of(text)).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def section(text: str, title: str) -> str:
    """The part of a page below the heading that starts with a given text."""
    (part,) = re.findall(rf"^## {title}.*?(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return part


def script_of(words: Sequence[str]) -> tuple[Path, list[str]] | None:
    """The script of this repository that a command starts, and its arguments; None if it starts something else."""
    if words[0] == "wildaffect":
        return ROOT / "wildaffect" / "cli.py", list(words[1:])
    if not LAUNCHERS & set(words[:2]):  # the second, where variables are set before it
        return None
    place = next((place for place, word in enumerate(words) if word.endswith(".py")), None)
    return None if place is None else (ROOT / words[place], list(words[place + 1 :]))


def run_script(script: Path, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script as `python SCRIPT ARGUMENTS` does; a failure is a SystemExit other than 0."""
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        assert not end.code, f"{script.name} {shlex.join(arguments)} ended with {end.code}"


def with_options(arguments: Sequence[str], options: Mapping[str, Sequence[str]]) -> list[str]:
    """Arguments with some options set to other values."""
    result: list[str] = []
    dropped = False
    for word in arguments:
        if word.startswith("--"):
            dropped = word in options
        if not dropped:
            result.append(word)
    for name, values in options.items():
        result += [name, *values]
    return result
