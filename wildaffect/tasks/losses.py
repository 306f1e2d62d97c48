"""Training losses of the three tasks, masked element by element.

All take `outputs` of any leading shape and a boolean mask, and return the mean over the annotated elements (0, with a
gradient of 0, where there is none).
"""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from checkpoints.errors import UserError

FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0


def masked_mean(loss: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean of `loss`; 0 when the weights are all 0."""
    return (loss * weight).sum() / weight.sum().clamp_min(1e-8)


def ccc_loss(values: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`1 - CCC` over the annotated elements, per group.

    Args:
        values: `[G, N]`: G groups (dimensions, or windows times dimensions) of N frames.
        labels: `[G, N]`.
        mask: `[G, N]` bool.

    Returns:
        Mean over the groups whose annotated frames have different labels, with the metric's population moments.
    """
    weight = mask.to(values.dtype)
    count = weight.sum(-1).clamp_min(1)
    # With every label of a group equal, CCC is 0 whatever is predicted: the group teaches nothing and is left out.
    highest, lowest = (torch.where(mask, labels, end).to(values.dtype) for end in (-torch.inf, torch.inf))
    useful = (highest.amax(-1) > lowest.amin(-1)).to(values.dtype)
    labels = torch.where(mask, labels, 0)
    mean_x, mean_y = (values * weight).sum(-1) / count, (labels * weight).sum(-1) / count
    x, y = (values - mean_x[..., None]) * weight, (labels - mean_y[..., None]) * weight
    covariance = (x * y).sum(-1) / count
    spread = (x.square().sum(-1) + y.square().sum(-1)) / count + (mean_x - mean_y).square()
    return masked_mean(1 - 2 * covariance / spread.clamp_min(1e-8), useful)


def va_loss(
    values: torch.Tensor,
    labels: torch.Tensor,
    mask: torch.Tensor,
    *,
    ccc_over: str = "batch",
    mse: float = 0.0,
) -> torch.Tensor:
    """`(1 - CCC_v + 1 - CCC_a) / 2` plus an optional squared error.

    The scale is that of paper msjae/ABAW (0.5 each); ling2024 uses the sum, which is the same up to the learning rate.

    Args:
        values: `[B, T, 2]` in [-1, 1] (or `[N, 2]`).
        labels: the same shape.
        mask: the same shape, bool.
        ccc_over: `batch`: moments over all frames of the batch (both papers), close to the metric but dependent on
            the batch size; `window`: over each window by itself, which weighs what happens within videos;
            `both`: the mean of the two.
        mse: weight of the mean squared error.
    """
    columns = (values, labels, mask)
    by_batch = [item.reshape(-1, 2).T for item in columns]
    by_window = [item.movedim(-1, -2).flatten(0, -2) for item in columns]
    if ccc_over == "both":
        loss = (ccc_loss(*by_batch) + ccc_loss(*by_window)) / 2
    else:
        loss = ccc_loss(*(by_window if ccc_over == "window" else by_batch))
    error = values - torch.where(mask, labels, 0)
    weight = mask.to(values.dtype)
    if mse:
        loss = loss + mse * masked_mean(error.square(), weight)
    return loss


def expression_loss(
    outputs: torch.Tensor,
    labels: torch.Tensor,
    mask: torch.Tensor,
    *,
    focal: bool = False,
    class_weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    prior: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy against classes or distributions, or the focal loss of min2024.

    The mean is over the class weights of the frames, as in `torch.nn.functional.cross_entropy`; the focal mean is over
    their number.

    Args:
        outputs: `[..., C]` logits.
        labels: `[...]` class numbers, or `[..., C]` distributions; anything where the mask is false.
        mask: `[...]` bool.
        focal: `alpha (1 - p_t)^gamma CE` with `p_t = exp(-CE)` (Lin et al. 2017; CE carries the class weights, as
            in min2024), alpha 0.25, gamma 2.
        class_weights: `[C]`.
        label_smoothing: Mass spread evenly over the classes (cross-entropy only).
        prior: `[C]` log shares of the classes, added to the logits in training only (logit adjustment, Menon et al.
            2021, eq. 10), so that plain arg-max aims at the balanced error; see :func:`log_prior`.
    """
    mask = mask.reshape(-1)
    if labels.ndim == outputs.ndim:
        target = torch.where(mask[:, None], labels.reshape(-1, labels.shape[-1]), 0).to(outputs.dtype)
    else:
        target = torch.where(mask, labels.reshape(-1), 0).long()
    outputs = outputs.reshape(-1, outputs.shape[-1])
    if prior is not None:
        outputs = outputs + prior
    loss = F.cross_entropy(
        outputs, target, class_weights, reduction="none", label_smoothing=0.0 if focal else label_smoothing
    )
    weight = mask.to(outputs.dtype)
    if focal:
        loss = FOCAL_ALPHA * (1 - torch.exp(-loss)) ** FOCAL_GAMMA * loss
    if class_weights is not None and not focal:
        each = class_weights[target] if target.ndim == 1 else target @ class_weights
        return (loss * weight).sum() / (weight * each).sum().clamp_min(1e-8)
    return masked_mean(loss, weight)


def log_prior(share: torch.Tensor) -> torch.Tensor:
    """Log shares `[C]` of the classes, for `expression_loss(prior=...)`.

    A class that never occurs gets the largest value, so that training pushes its logit down as plain cross-entropy
    would; minus infinity would leave it anywhere.
    """
    log = share.clamp_min(1e-12).log()
    return torch.where(share > 0, log, log.max())


def action_unit_loss(
    outputs: torch.Tensor,
    labels: torch.Tensor,
    mask: torch.Tensor,
    *,
    focal: bool = False,
    pos_weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Binary cross-entropy with a true `pos_weight`, or the sigmoid focal loss.

    Args:
        outputs: `[..., 12]` logits.
        labels: `[..., 12]` zeros and ones, or intensities between; anything where the mask is false.
        mask: `[..., 12]` bool.
        focal: `alpha_t (1 - p_t)^gamma BCE` (Lin et al. 2017), alpha 0.25 for positives, 0.75 for negatives, gamma 2.
        pos_weight: `[12]` factor on the positive term (negatives over positives), not on both terms.

    Raises:
        UserError: `focal` and `pos_weight` together: the focal loss has its own balance.
    """
    target = torch.where(mask, labels, 0).to(outputs.dtype)
    if focal and pos_weight is not None:
        raise UserError("the focal loss balances positives and negatives itself: use --pos-weight none with --focal")
    if focal:
        loss = sigmoid_focal_loss(outputs, target, FOCAL_ALPHA, FOCAL_GAMMA)
    else:
        loss = F.binary_cross_entropy_with_logits(outputs, target, reduction="none", pos_weight=pos_weight)
    return masked_mean(loss, mask.to(outputs.dtype))
