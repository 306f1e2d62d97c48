"""Cross-entropy over soft targets (votes, mixup) and its variants for rare classes.

:func:`wildaffect.tasks.losses.expression_loss` is the same for frames with one true class each.
"""

import numpy as np
import torch
from torch.nn import functional

from finetune.augment import batch_mixing
from wildaffect.tasks.losses import FOCAL_ALPHA, FOCAL_GAMMA


class Objective:
    """Mean loss of a network over a micro-batch, after mixing.

    Args:
        mass: `[C]` share of each class in the training labels.
        imbalance: See :class:`ExpressionLoss`.
        label_smoothing: See :class:`ExpressionLoss`.
        mixup: See :func:`finetune.augment.batch_mixing`.
        cutmix: See :func:`finetune.augment.batch_mixing`.
        device: Where the batches are.
    """

    def __init__(
        self,
        mass: np.ndarray,
        *,
        imbalance: str,
        label_smoothing: float,
        mixup: float,
        cutmix: float,
        device: torch.device,
    ) -> None:
        share = torch.from_numpy(mass).float()
        self._loss = ExpressionLoss(share, imbalance=imbalance, label_smoothing=label_smoothing).to(device)
        self._mix = batch_mixing(mixup=mixup, cutmix=cutmix)

    def __call__(self, network: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Loss of `images` uint8 `[B, 3, S, S]` against `targets` `[B, C]`."""
        images, targets = self._mix(batch["images"], batch["targets"])
        loss: torch.Tensor = self._loss(network(images), targets)
        return loss


class ExpressionLoss(torch.nn.Module):
    """Mean loss of logits against class distributions.

    Args:
        mass: `[C]` share of each class in the training labels, each frame weighted as often as it is drawn.
        imbalance: `none`: cross-entropy; `class_weights`: each class weighted by the inverse of its share, scaled so
            that the mean weight over the training labels is 1; `focal`: `alpha (1 - p_c)^gamma` on each term (Lin et
            al. 2017); `logit_adjustment`: the log shares are added to the logits in training alone (Menon et al. 2021,
            eq. 10), which makes plain arg-max aim at the balanced error.
        label_smoothing: Mass spread evenly over the classes.
    """

    weights: torch.Tensor
    prior: torch.Tensor

    def __init__(self, mass: torch.Tensor, *, imbalance: str = "none", label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.imbalance = imbalance
        self.label_smoothing = label_smoothing
        present = mass > 0
        weights = torch.where(present, 1 / mass.clamp_min(1e-12), 0)
        self.register_buffer("weights", weights / (weights * mass).sum())
        # A class that never occurs gets the largest offset, so that training pushes its logit down as plain
        # cross-entropy would; -inf would leave it anywhere.
        log = mass.clamp_min(1e-12).log()
        self.register_buffer("prior", torch.where(present, log, log.max()))

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean over the batch.

        Args:
            logits: `[B, C]`.
            targets: `[B, C]`, rows sum to 1.
        """
        logits = logits.float()
        if self.imbalance == "logit_adjustment":
            logits = logits + self.prior
        if self.imbalance == "focal":
            targets = targets * (1 - self.label_smoothing) + self.label_smoothing / targets.shape[1]
            log_p = logits.log_softmax(dim=1)
            return -(FOCAL_ALPHA * (1 - log_p.exp()) ** FOCAL_GAMMA * targets * log_p).sum(dim=1).mean()
        weight = self.weights if self.imbalance == "class_weights" else None
        return functional.cross_entropy(logits, targets, weight, label_smoothing=self.label_smoothing)
