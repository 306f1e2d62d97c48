"""The moving average of a network's weights."""

from timm.utils import ModelEmaV3
from torch import nn


def moving_average(model: nn.Module, decay: float) -> ModelEmaV3 | None:
    """Exponential moving average of a model's parameters; its buffers (batch-norm statistics) are the newest ones.

    Each step keeps the share `decay` of the old average; 0 means no average. The model must be on its device already.
    The result goes to `Loop(ema=...)`; its `module` is the averaged network.
    """
    return ModelEmaV3(model, decay=decay, exclude_buffers=True) if decay else None
