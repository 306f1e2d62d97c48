"""Learning rate and weight decay as functions of the step: nothing to checkpoint, nothing to step."""

import math

import torch


def warmup_cosine(step: int, *, total: int, warmup: int, peak: float, final: float = 0.0) -> float:
    """Learning rate of optimizer step `step` (0-based): linear warm-up to `peak`, then half a cosine to `final`.

    Args:
        step: Which step is about to be done.
        total: Number of steps of the whole run.
        warmup: Number of steps of the linear part.
        peak: Value right after the warm-up.
        final: Value that the cosine would reach at step `total`.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return final + 0.5 * (peak - final) * (1 + math.cos(math.pi * progress))


def warmup_step(step: int, *, total: int, warmup: int, peak: float) -> float:
    """Learning rate of optimizer step `step` (0-based): linear warm-up, `peak`, and a tenth of it from 80 % on."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak if step < 0.8 * total else 0.1 * peak


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group `lr` times its own `lr_scale` (layer-wise decay), 1 where it has none."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
