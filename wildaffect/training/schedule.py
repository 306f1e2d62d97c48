"""Learning rate and weight decay: functions of step and weight, so there is no scheduler to step or to checkpoint."""

import math
from typing import Any

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


def weight_groups(network: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of the weights that are trained: with weight decay for matrices, without for vectors."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    matrices, vectors = ([p for p in trained if (p.ndim > 1) == wanted] for wanted in (True, False))
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
