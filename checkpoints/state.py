"""Training state on disk: what a killed run needs to resume as if it had not been interrupted.

`state/step_00001200/` holds one safetensors file per named group of tensors and `state.json`. A state is written to a
temporary directory and renamed, so it exists completely or not at all. If a file of the newest state was damaged later,
the state before it is loaded, with a warning.
"""

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch

from checkpoints.artifact import file_hash, read_sealed, temporary_sibling, write_sealed
from checkpoints.content import changed_error
from checkpoints.errors import UserError
from checkpoints.forms import Count, Name
from checkpoints.tensors import load_tensors, save_tensors


class State(TypedDict):
    """The header of a state."""

    step: Count
    hashes: dict[Name, str]
    facts: dict[str, Any]


TensorGroups = dict[str, dict[str, torch.Tensor]]


def save_state(
    directory: Path, step: int, groups: Mapping[str, Mapping[str, torch.Tensor]], facts: dict[str, Any]
) -> Path:
    """Write the state after `step` optimizer steps to a run's `state` directory; keep only the newest two states.

    The `groups` are tensors by group name (`model`, `ema`, `optimizer`), the `facts` are JSON values.
    """
    final = directory / f"step_{step:08d}"
    temporary = temporary_sibling(final)
    temporary.mkdir(parents=True)
    try:
        for name, tensors in groups.items():
            save_tensors(temporary / f"{name}.safetensors", dict(tensors))
        hashes = {file.name: file_hash(file) for file in sorted(temporary.iterdir())}
        write_sealed(temporary / "state.json", {"step": step, "hashes": hashes, "facts": facts})
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in _states(directory)[:-2]:
        shutil.rmtree(old)
    return final


def load_state(directory: Path) -> tuple[int, TensorGroups, dict[str, Any]] | None:
    """Read the newest intact state: (step, tensor groups, facts), or None if there is none."""
    for state in reversed(_states(directory)):
        try:
            header = read_sealed(state / "state.json", State)
            for name, expected in header["hashes"].items():
                if file_hash(state / name) != expected:
                    raise changed_error(state / name, state / "state.json")
            groups = {Path(name).stem: load_tensors(state / name) for name in header["hashes"]}
            return header["step"], groups, header["facts"]
        except (UserError, OSError) as error:
            warnings.warn(f"training state {state} is damaged ({error}); loading the one before it", stacklevel=2)
    return None


def _states(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("step_*") if path.is_dir())


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Flatten an optimizer's state to tensors named `<parameter number>.<name>`; the step gives learning rates."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": torch.as_tensor(value) for number, slot in state.items() for name, value in slot.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load the result of :func:`optimizer_tensors` into an optimizer over the same parameters."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
