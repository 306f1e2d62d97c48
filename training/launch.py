"""Starting a training process: how many there are, on what device, in which precision; randomness by step."""

import os

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from checkpoints.errors import UserError


def start(precision: str) -> Accelerator:
    """Set up Accelerate and print what was found.

    Args:
        precision: `bf16`, `fp32`, or `auto` (bf16 where the hardware computes in it).

    Raises:
        UserError: The launcher's environment and Accelerate disagree on the number of processes.
    """
    chosen, reason = choose_precision(precision)
    # Stages that run one after another in one process (`make demo`) may differ in precision, which Accelerate keeps.
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision="bf16" if chosen == "bf16" else "no", step_scheduler_with_optimizer=False)
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != accelerator.num_processes:
        raise UserError(
            f"the launcher started {launched} processes but Accelerate sees {accelerator.num_processes}: each would "
            "train alone. On CPU start with `ACCELERATE_USE_CPU=true torchrun --nproc_per_node N SCRIPT`"
        )
    accelerator.print(
        f"{accelerator.num_processes} process(es) on {accelerator.device}, {torch.get_num_threads()} thread(s) each; "
        f"{chosen}: {reason}"
    )
    return accelerator


def choose_precision(precision: str) -> tuple[str, str]:
    """Decide between `bf16` and `fp32`; returns the choice and the reason for it."""
    if precision != "auto":
        return precision, "asked for"
    if torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "").lower() not in ("1", "true", "yes"):
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", f"{torch.cuda.get_device_name()} computes in it"
        return "fp32", f"{torch.cuda.get_device_name()} has no bf16 arithmetic"
    if cpu_has_bf16():
        return "bf16", "this CPU has bf16 instructions"
    return "fp32", "this CPU has no bf16 instructions"


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 matrices natively (AVX512-BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def reseed(seed: int, step: int, rank: int) -> None:
    """Seed what is drawn inside a step (dropout, mixup), so that a resumed run draws the same."""
    torch.manual_seed((seed * 1_000_003 + step) * 4_099 + rank)
