"""Who may import whom (DESIGN: data flows down the list of rooms, and imports follow it), and where imports stand."""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND = ("checkpoints", "wildaffect.tasks", "wildaffect.report", "wildaffect.training")
STAGES = ("preprocessing", "pretrain", "finetune", "features", "temporal")
TOP = ("wildaffect.inference", "wildaffect", "synthwild", "audit")
ROOMS = (*GROUND, *STAGES, *TOP)
ALSO: dict[str, set[str]] = {  # beside the ground floor and the room itself
    **{stage: {"preprocessing.faces", "preprocessing.views"} for stage in STAGES[1:]},
    "features": {"preprocessing.faces", "preprocessing.views"}
    | {"preprocessing.sources", "preprocessing.sound"},  # the sound of a store's videos
    "temporal": {"preprocessing.faces", "preprocessing.views", "features.cache"},
    "synthwild": {"preprocessing.align"},  # the release's aligned crops
    "audit": {"preprocessing.affwild2", "preprocessing.faces", "preprocessing.sources", "preprocessing.video"},
    "wildaffect.inference": {*STAGES},
    "wildaffect": {"wildaffect.inference"},
}
FILES = sorted(
    path for room in (*STAGES, *TOP, "checkpoints") for path in ROOT.joinpath(*room.split(".")).rglob("*.py")
)
FILES = list(dict.fromkeys(FILES))
COMMANDS = [path for path in FILES if "guarded(" in path.read_text(encoding="utf-8") and path.name != "errors.py"]
MOST_DEFERRED = 60


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str | None:
    """The room that a module is in; rooms below `wildaffect` count as rooms of their own."""
    return next((room for room in sorted(ROOMS, key=len, reverse=True) if f"{module}.".startswith(f"{room}.")), None)


def imports_of(path: Path, *, deferred: bool) -> list[str]:
    """Full names of what a file imports, at its top or inside functions."""
    names = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    for node in ast.walk(tree):
        if (id(node) in inside) != deferred:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def allowed(room: str, module: str) -> bool:
    target = room_of(module)
    if target is None or target == room:
        return True
    if room in GROUND:
        return target in GROUND[: GROUND.index(room)]
    if target in GROUND:
        return True
    return any(f"{module}.".startswith(f"{door}.") for door in ALSO.get(room, ()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_data(path):
    room = room_of(module_of(path))
    assert room is not None
    wrong = [
        name for deferred in (False, True) for name in imports_of(path, deferred=deferred) if not allowed(room, name)
    ]
    assert not wrong, f"{path.relative_to(ROOT)} must not import {wrong}"


def test_the_rule_can_fail():
    assert not allowed("checkpoints", "wildaffect.tasks.metrics")
    assert not allowed("wildaffect.tasks", "wildaffect.training.loop")
    assert not allowed("pretrain", "preprocessing.video")
    assert not allowed("finetune", "features.cache.FeatureCache")
    assert not allowed("temporal", "wildaffect.inference.clip")
    assert not allowed("wildaffect.inference", "audit.folds")
    assert allowed("temporal", "features.cache.FeatureCache")
    assert allowed("wildaffect.inference", "temporal.heads")


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """A cycle in a directed graph; empty if there is none."""
    state: dict[str, int] = {}
    path: list[str] = []

    def visit(node: str) -> list[str]:
        state[node] = 1
        path.append(node)
        for target in sorted(graph.get(node, ())):
            if state.get(target) == 1:
                return path[path.index(target) :]
            if target in graph and target not in state and (found := visit(target)):
                return found
        state[node] = 2
        path.pop()
        return []

    return next((found for node in graph if node not in state and (found := visit(node))), [])


def test_no_module_imports_itself_in_the_end():
    modules = {module_of(path) for path in FILES}
    graph: dict[str, set[str]] = {}
    for path in FILES:
        if path.name == "__init__.py":
            continue
        names = [*imports_of(path, deferred=False), *imports_of(path, deferred=True)]
        graph[module_of(path)] = {name.rsplit(".", 1)[0] if name not in modules else name for name in names} & modules
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert not cycle_in(graph)


def test_deferred_imports_stand_in_command_files_alone():
    allowed_there = {*COMMANDS, ROOT / "wildaffect" / "__init__.py"}
    counts = {path: len(imports_of(path, deferred=True)) for path in FILES}
    wrong = {str(path.relative_to(ROOT)): n for path, n in counts.items() if n and path not in allowed_there}
    assert not wrong, f"imports inside functions: {wrong}"
    assert 0 < sum(counts.values()) < MOST_DEFERRED


def test_no_module_bears_the_name_of_a_room_or_of_somebody_elses():
    taken = {*importlib.metadata.packages_distributions(), *sys.stdlib_module_names} - {"wildaffect", "tests"}
    taken |= {part for room in ROOMS for part in room.split(".")}
    assert not [path for path in FILES if path.stem in taken and path.name != "__init__.py"]


def test_no_file_edits_the_path():
    assert not [path for path in FILES if "sys.path" in path.read_text(encoding="utf-8")]


def test_the_package_itself_loads_nothing_heavy():
    code = "import sys, wildaffect; print(sorted({'torch', 'numpy', 'tyro', 'cv2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: str(path.relative_to(ROOT)))
def test_help_loads_no_torch(path):
    """So that it appears within a second or two; the exact time depends on the machine."""
    names = imports_of(path, deferred=False)
    code = f"import sys; import {module_of(path)}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert names and done.stdout.strip() == "False"
