"""Files of tensors: written atomically, checked against headers, loaded strictly."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from checkpoints.artifact import atomic_file, fingerprint
from checkpoints.content import changed_error
from checkpoints.errors import UserError


def checked_weights(file: Path, expected: str, header: Path) -> str:
    """Fingerprint of a file of weights, computed from the file (about 0.55 GB/s), not copied from the header.

    Raises:
        UserError: The header was written for other weights, or there are none.
    """
    if not file.is_file():
        raise UserError(f"{file} is missing, which {header} lists: restore it, or make the artifact again")
    found = fingerprint(file)
    if expected != found:
        raise changed_error(file, header)
    return found


def load_weights(module: nn.Module, tensors: dict[str, torch.Tensor], *, source: object) -> None:
    """Load a state dict strictly.

    Raises:
        UserError: Keys are missing, unknown or have the wrong shape; the message lists them.
    """
    refuse_misfits({name: tensor.shape for name, tensor in module.state_dict().items()}, tensors, source=source)
    module.load_state_dict(tensors)


def refuse_misfits(
    wanted: Mapping[str, Sequence[int]], tensors: Mapping[str, torch.Tensor], *, source: object, most: int = 6
) -> None:
    """Check the names and shapes of tensors against the `wanted` ones.

    Raises:
        UserError: Keys are missing, unknown or have the wrong shape; the message lists `most` of them.
    """
    problems = [f"missing {key}" for key in wanted if key not in tensors]
    problems += [f"unknown {key}" for key in tensors if key not in wanted]
    problems += [
        f"{key} is {list(tensors[key].shape)}, expected {list(shape)}"
        for key, shape in wanted.items()
        if key in tensors and tuple(tensors[key].shape) != tuple(shape)
    ]
    if problems:
        rest = f"; and {len(problems) - most} more" if len(problems) > most else ""
        raise UserError(f"the weights in {source} do not fit: {'; '.join(problems[:most])}{rest}")


def save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write tensors to one safetensors file, atomically."""
    with atomic_file(path) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises:
        UserError: The file is missing, truncated or not safetensors.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
