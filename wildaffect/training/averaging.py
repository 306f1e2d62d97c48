"""The moving average of a network's weights."""

from timm.utils import ModelEmaV3
from torch import nn


def moving_average(model: nn.Module, decay: float) -> ModelEmaV3 | None:
    """Exponential moving average of a model's parameters; its buffers (batch-norm statistics) are the newest ones.

    Args:
        model: The network, already on its device.
        decay: Share of the old average that each step keeps; 0 for no average.

    Returns:
        What `Loop(ema=...)` updates; the averaged network is its `module`.
    """
    return ModelEmaV3(model, decay=decay, exclude_buffers=True) if decay else None
