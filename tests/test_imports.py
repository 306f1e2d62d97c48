"""Data flows down the list of the house; imports follow it."""

import ast
import importlib.metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND = ["checkpoints", "tasks", "report", "training"]  # each may import those before it
STAGES = ["preprocessing", "pretrain", "finetune", "temporal"]
DOORS = {"preprocessing.faces": STAGES[1:], "finetune.features": STAGES[3:]}
ROOMS = [*GROUND, *STAGES, "inference"]
FILES = [path for room in ROOMS for path in sorted((ROOT / room).glob("**/*.py"))]


def imported(path):
    """Full names of the modules that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(room, module):
    target = module.split(".")[0]
    if target not in ROOMS or room in {target, "inference"}:
        return True
    if room in GROUND:
        return target in GROUND[: GROUND.index(room)]
    if target in GROUND:
        return True
    return any(module == door or module.startswith(f"{door}.") for door, rooms in DOORS.items() if room in rooms)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_data(path):
    room = path.relative_to(ROOT).parts[0]
    wrong = [module for module in imported(path) if not allowed(room, module)]
    assert not wrong, f"{path.relative_to(ROOT)} must not import {wrong}"


def test_the_rule_can_fail():
    assert not allowed("checkpoints", "tasks.metrics")
    assert not allowed("tasks", "temporal.heads")
    assert not allowed("pretrain", "preprocessing.video")
    assert not allowed("pretrain", "finetune.features")
    assert not allowed("temporal", "inference.run")
    assert allowed("temporal", "finetune.features.FeatureCache")


def test_no_module_bears_the_name_of_a_dependency():
    taken = set(importlib.metadata.packages_distributions()) - {*ROOMS, "wildaffect", "tests"}
    assert not [path for path in FILES if path.stem in taken]


def test_no_file_edits_the_path():
    assert not [path for path in FILES if "sys.path" in path.read_text(encoding="utf-8")]
