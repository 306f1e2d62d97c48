"""Random masking of features in training, and what stands in for missing frames.

min2024 (Min et al., CVPRW 2024) names random *frame* masking; its code masks single *elements* of the feature matrix.
Both are here, and spans of frames, which is how faces really go missing.
"""

from __future__ import annotations

import torch
from torch import nn

from temporal.recipes import MaskFill, MaskForm

SPAN = 10  # mean length of a masked span, in frames


class RandomMasking(nn.Module):
    """Hide part of `[B, T, D]` features, each sample for itself, in training only.

    With `frames` and `spans` a hidden frame is treated like a frame without a face: its validity flag becomes false and
    its features are filled in the same way, so that training shows the network what missing frames look like:

    * `nearest`: as the cache does at test time, the nearest frame that is there;
    * `zero`: zeros (after normalisation: the average frame);
    * `token`: a learned vector.

    `elements` sets single numbers to 0, without rescaling (as in min2024's code), and leaves flags alone.

    Args:
        form: what is hidden.
        ratio: expected share of it.
        fill: what is put in place of hidden and missing frames.
        dim: D.
    """

    def __init__(self, form: MaskForm, ratio: float, fill: MaskFill, dim: int) -> None:
        super().__init__()
        self.form, self.ratio, self.fill = form, ratio, fill
        if fill == "token":
            self.token = nn.Parameter(torch.zeros(dim))

    def forward(
        self, features: torch.Tensor, valid: torch.Tensor, inside: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Hide and fill.

        Args:
            features: `[B, T, D]`, missing frames already filled with the nearest one.
            valid: `[B, T]` bool, frames with a face.
            inside: `[B, T]` bool, false for padding.

        Returns:
            The features and the flags as the network shall see them.
        """
        hide = self.training and self.form != "none"
        if hide and self.form == "elements":
            features = features * (torch.rand_like(features) >= self.ratio)
        elif hide:
            seen = valid & ~self._hidden(features.shape[0], features.shape[1], features.device)
            if self.fill == "nearest":
                features = _nearest(features, seen & inside)
            valid = seen
        if self.fill != "nearest":
            stand_in = self.token.to(features.dtype) if self.fill == "token" else features.new_zeros(())
            features = torch.where(valid[..., None], features, stand_in)
        return features, valid

    def _hidden(self, batch: int, time: int, device: torch.device) -> torch.Tensor:
        """`[batch, time]` bool with an expected share of `ratio` true."""
        if self.form == "frames":
            return torch.rand(batch, time, device=device) < self.ratio
        # Two-state chain: spans of mean length SPAN, in a stationary share of `ratio`.
        leave, enter = 1 / SPAN, min(1.0, self.ratio / max(1e-6, 1 - self.ratio) / SPAN)
        draws = torch.rand(time, batch, device=device)
        state = draws[0] < self.ratio
        states = [state]
        for draw in draws[1:]:
            state = torch.where(state, draw >= leave, draw < enter)
            states.append(state)
        return torch.stack(states, dim=1)


def _nearest(features: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Replace rows that are not `seen` by the nearest seen row (all stay where none is seen)."""
    time = features.shape[1]
    steps = torch.arange(time, device=features.device).expand_as(seen)
    before = torch.where(seen, steps, -10 * time).cummax(dim=1).values
    after = torch.where(seen, steps, 10 * time).flip(1).cummin(dim=1).values.flip(1)
    source = torch.where(steps - before <= after - steps, before, after)
    source = torch.where(seen | ~seen.any(dim=1, keepdim=True), steps, source).clamp(0, time - 1)
    return features.gather(1, source[..., None].expand_as(features))
