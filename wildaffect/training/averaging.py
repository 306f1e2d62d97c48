"""The moving average of a network's weights."""

from timm.utils import ModelEmaV3
from torch import nn


def moving_average(model: nn.Module, decay: float, *, pretrained: bool) -> ModelEmaV3 | None:
    """Exponential moving average of a model's parameters; its buffers (batch-norm statistics) are the newest ones.

    The model must be on its device already. The result goes to `Loop(ema=...)`; its `module` is the averaged network.

    Args:
        model: The network.
        decay: Share of the old average that each step keeps; 0: no average.
        pretrained: Start from the model's present weights. Otherwise from those after the first step, because random
            weights are not worth averaging.
    """
    if not decay:
        return None
    return ModelEmaV3(model, decay=decay, update_after_step=-1 if pretrained else 0, exclude_buffers=True)
