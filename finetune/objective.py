"""The training loss of stage 2: the expression task's own loss on mixed batches with soft targets."""

import numpy as np
import torch

from finetune.augment import batch_mixing
from wildaffect.tasks import EXPR
from wildaffect.tasks.losses import log_prior


class Objective:
    """Mean loss of a network over a micro-batch.

    Args:
        share: `[C]` share of each class in the training labels, each frame counted as often as it is drawn.
        imbalance: `none`: cross-entropy; `logit_adjustment`: see :func:`wildaffect.tasks.losses.expression_loss`.
        label_smoothing: Mass spread evenly over the classes.
        mixup: See :func:`finetune.augment.batch_mixing`.
        cutmix: See :func:`finetune.augment.batch_mixing`.
        device: Where the batches are.
    """

    def __init__(
        self,
        share: np.ndarray,
        *,
        imbalance: str,
        label_smoothing: float,
        mixup: float,
        cutmix: float,
        device: torch.device,
    ) -> None:
        adjusted = imbalance == "logit_adjustment"
        self._prior = log_prior(torch.from_numpy(share).float()).to(device) if adjusted else None
        self._label_smoothing = label_smoothing
        self._mix = batch_mixing(mixup=mixup, cutmix=cutmix)

    def __call__(self, network: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Loss of `images` uint8 `[B, 3, S, S]` against `targets` `[B, C]`."""
        images, targets = self._mix(batch["images"], batch["targets"])
        known = torch.ones(len(targets), 1, dtype=torch.bool, device=targets.device)
        logits = network(images).float()
        return EXPR.loss(logits, targets, known, label_smoothing=self._label_smoothing, prior=self._prior)
