"""The learning rate as a function of the step, so there is no scheduler to step or to checkpoint."""

import math

import torch


def warmup_cosine(step: int, *, total: int, warmup: int, peak: float) -> float:
    """Learning rate of optimizer step `step` (0-based): linear warm-up to `peak`, then half a cosine to 0.

    The warm-up takes `warmup` steps; the cosine would reach 0 at step `total`.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return 0.5 * peak * (1 + math.cos(math.pi * progress))


def warmup_step(step: int, *, total: int, warmup: int, peak: float) -> float:
    """Learning rate of optimizer step `step` (0-based): linear warm-up to `peak`, a tenth of it from 80 % on."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak if step < 0.8 * total else 0.1 * peak


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set each parameter group to `lr` times its `lr_scale` (layer-wise decay), which is 1 by default."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
