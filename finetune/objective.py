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
        labelled: `[8]` or `[8 + 12]` share of the drawn frames that are labelled, by column of the targets.
        imbalance: `none`: cross-entropy; `logit_adjustment`: see :func:`wildaffect.tasks.losses.expression_loss`.
        label_smoothing: Mass spread evenly over the classes.
        mixup: See :func:`finetune.augment.batch_mixing`.
        cutmix: See :func:`finetune.augment.batch_mixing`.
        device: Where the batches are.
    """

    def __init__(
        self,
        share: np.ndarray,
        labelled: np.ndarray,
        *,
        imbalance: str,
        label_smoothing: float,
        mixup: float,
        cutmix: float,
        device: torch.device,
    ) -> None:
        adjusted = imbalance == "logit_adjustment"
        self._prior = log_prior(torch.from_numpy(share).float()).to(device) if adjusted else None
        self._labelled = torch.from_numpy(labelled).float().to(device)
        self._label_smoothing = label_smoothing
        self._mix = batch_mixing(mixup=mixup, cutmix=cutmix)

    def __call__(self, network: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Loss of `images` uint8 `[B, 3, S, S]` against `targets` `[B, C]`.

        Targets of 8 + 12 columns hold expressions and action units: the loss is the sum of both tasks' means, each
        over the frames that are labelled for it (not NaN). How many these are is expected, not counted, so that a
        step's loss does not depend on how its frames are divided into micro-batches.
        """
        images, targets = self._mixed(batch["images"], batch["targets"])
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
        loss = loss * known.float().mean() / self._labelled[:width].mean()
        if units.shape[1]:
            seen = ~units.isnan()
            loss = loss + AU.loss(logits[:, width:], units.nan_to_num(), seen) * (
                seen.float().mean() / self._labelled[width:].mean()
            )
        return loss

    def _mixed(self, images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix a batch; faces with expressions and faces with action units are mixed among themselves."""
        if targets.shape[1] == EXPR.out_dim:
            return self._mix(images, targets)
        other = targets[:, : EXPR.out_dim].isnan().any(1)
        parts = [where for where in (~other, other) if where.any()]
        mixed = [self._mix(images[where], targets[where]) for where in parts]
        return torch.cat([pictures for pictures, _ in mixed]), torch.cat([labels for _, labels in mixed])
