"""The files around the code: citation, issue forms, pre-commit, and the image's RUN lines."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
import yaml

from tests.docs.commands import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def test_the_citation_has_the_keys_of_its_schema_and_the_version_of_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what schema 1.2.0 requires
    assert all(set(author) <= {"name", "family-names", "given-names", "orcid"} for author in citation["authors"])
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])


@pytest.mark.parametrize("path", [path for path in FORMS if path.stem != "config"], ids=lambda path: path.stem)
def test_issue_forms_have_what_the_page_of_an_issue_needs(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert all(field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields) >= 2
    assert any(field["validations"]["required"] for field in fields if "validations" in field)


def test_pre_commit_runs_what_make_lint_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert recipe
    lines = [line.strip().replace("$(BIN)", ".venv/bin").removesuffix(" .") for line in recipe[1].splitlines()]
    assert [hook["entry"] for hook in hooks] == lines


def test_contributing_names_targets_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    targets = re.findall(r"^make (\w+)", text, re.MULTILINE)
    assert targets and all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in targets)


def test_the_images_run_lines_install_the_command(tmp_path):
    """As a script, in an empty environment; dependencies come from this one instead of the network."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    source = tmp_path / "src"
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*ignored, ".*_cache", "__pycache__"))
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    programs = tmp_path / "env" / "bin"
    (packages,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    (programs / "pip").write_text(f'#!/bin/sh\nexec {programs / "python"} -m pip "$@"\n')
    (programs / "pip").chmod(0o755)
    offline = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}  # 0: build without isolation
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    lines = re.findall(r"^RUN (.*)$", text, re.MULTILINE)
    assert len(lines) == 2
    script = "\n".join(["set -e", *lines]).replace("/src", str(source))
    path = f"{programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", script], env=clean | offline | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stdout + done.stderr
    assert not source.exists()
    command = re.search(r'^ENTRYPOINT \["(\w+)"\]$', text, re.MULTILINE)
    assert command
    shown = subprocess.run([programs / command[1], "--help"], env=clean, capture_output=True, text=True, check=True)
    assert "predict" in shown.stdout
