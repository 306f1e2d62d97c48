"""The training loss of stage 2: the tasks' own losses on mixed batches with soft targets."""

import numpy as np
import torch

from finetune.augment import batch_mixing
from wildaffect.tasks import AU, EXPR
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
        """Loss of `images` uint8 `[B, 3, S, S]` against `targets` `[B, C]`.

        Targets of 8 + 12 columns hold expressions and action units: the loss is the sum of both tasks' means, each
        over the frames that are labelled for it (not NaN).
        """
        images, targets = self._mix(batch["images"], batch["targets"])
        logits = network(images).float()
        width = EXPR.out_dim
        expressions, units = targets[:, :width], targets[:, width:]
        known = ~expressions.isnan().any(1, keepdim=True)
        loss = EXPR.loss(
            logits[:, :width],
            expressions.nan_to_num(),
            known,
            label_smoothing=self._label_smoothing,
            prior=self._prior,
        )
        if units.shape[1]:
            loss = loss + AU.loss(logits[:, width:], units.nan_to_num(), ~units.isnan())
        return loss
