"""Starting a training process: number of processes, device, precision; seeding by step."""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import AutocastKwargs, InitProcessGroupKwargs, LoggerType

from checkpoints.errors import UserError
from wildaffect.training.meter import peak_flops
from wildaffect.training.rundir import RunDirectory


def start(precision: str, tracker: str = "", out: Path | None = None) -> Accelerator:
    """Set up Accelerate and print what it found.

    Args:
        precision: `bf16`, `fp32`, or `auto` (bf16 where the hardware supports it natively).
        tracker: An experiment tracker that Accelerate knows (`tensorboard`, `wandb`, ...), or none.
        out: The run directory; a tracker that keeps files asks for it.

    Raises:
        UserError: The launcher's environment and Accelerate disagree on the number of processes; the tracker is
            unknown or not installed.
    """
    check_tracker(tracker)
    chosen, reason = choose_precision(precision)
    accelerator = Accelerator(
        # Accelerate fixes this for the whole process, but stages that run one after another (`make demo`) may differ
        # in precision. So it is always bf16, and each run turns autocast on or off.
        mixed_precision="bf16",
        log_with=tracker or None,
        project_dir=out if tracker else None,
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[
            AutocastKwargs(enabled=chosen == "bf16"),
            # The first process hashes and copies large stores while the others wait: torch's ten minutes may not do.
            InitProcessGroupKwargs(timeout=timedelta(hours=3)),
        ],
    )
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


def check_tracker(name: str) -> None:
    """Refuse a tracker that is unknown or not installed; Accelerate itself ignores the latter silently."""
    if not name:
        return
    if name not in LOGGER_TYPE_TO_CLASS:
        known = ", ".join(sorted(map(str, LOGGER_TYPE_TO_CLASS)))
        raise UserError(f"Accelerate has no tracker {name!r}: choose one of {known}")
    if name in LoggerType.list() and name not in map(str, get_available_trackers()):
        raise UserError(f"the tracker {name} is not installed: `pip install {name.replace('_', '-')}`")


def track(accelerator: Accelerator, run: RunDirectory, config: Mapping[str, Any]) -> None:
    """Send everything that a run logs to the tracker given to :func:`start` as well, if there is one.

    The tracker gets the numbers of each record at its step and keeps its files in the run's directory. Settings of
    types that trackers do not support are sent as text. What the tracker recorded before is closed.
    """
    if not accelerator.log_with:
        return
    while accelerator.trackers:  # Accelerate adds to them
        accelerator.trackers.pop().finish()
    accelerator.project_configuration.logging_dir = run.path
    plain = {key: value if isinstance(value, int | float | str) else str(value) for key, value in config.items()}
    accelerator.init_trackers("wildaffect", config=plain)
    run.listener = lambda record: accelerator.log(
        {key: value for key, value in record.items() if key != "step"}, step=record["step"]
    )


def peak(accelerator: Accelerator) -> float:
    """Peak FLOP/s of all devices of the run together; 0 if unknown."""
    if accelerator.device.type != "cuda":
        return 0.0
    name = torch.cuda.get_device_name(accelerator.device)
    return accelerator.num_processes * peak_flops(name, chosen_precision(accelerator))


def choose_precision(precision: str, device: torch.device | None = None) -> tuple[str, str]:
    """Choose between `bf16` and `fp32` for a device (None: the one that Accelerate takes).

    Returns:
        The choice and the reason for it.
    """
    if precision != "auto":
        return precision, "asked for"
    wants_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    if torch.cuda.is_available() and (not wants_cpu if device is None else device.type == "cuda"):
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", f"{torch.cuda.get_device_name()} supports it"
        return "fp32", f"{torch.cuda.get_device_name()} has no bf16 arithmetic"
    if not hasattr(torch.cpu, "get_capabilities"):  # torch 2.8 has no such function
        return "fp32", f"torch {torch.__version__} does not say whether this CPU has bf16 instructions"
    capabilities = torch.cpu.get_capabilities()
    if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"):  # these multiply bf16 matrices natively
        return "bf16", "this CPU has bf16 instructions"
    return "fp32", "this CPU has no bf16 instructions"


def chosen_precision(accelerator: Accelerator) -> str:
    """`bf16` or `fp32`, as chosen by :func:`start`."""
    autocast = accelerator.autocast_handler
    return "bf16" if autocast is not None and autocast.enabled else "fp32"


def reseed(seed: int, step: int, rank: int) -> None:
    """Seed the randomness inside a step (dropout, mixup), so that a resumed run draws the same numbers."""
    torch.manual_seed((seed * 1_000_003 + step) * 4_099 + rank)
