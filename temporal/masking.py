"""Random masking of features during training, and what replaces missing frames.

min2024 (Min et al., CVPRW 2024) describes random *frame* masking, but its code masks single *elements* of the feature
matrix. This module has both, and spans of frames, which is how faces go missing in real videos.
"""

import torch
from torch import nn

from temporal.recipes import MaskFill, MaskForm

SPAN = 10  # mean length of a masked span, in frames


class RandomMasking(nn.Module):
    """Hide part of `[B, T, D]` features, independently in each sample, during training only.

    With `frames` and `spans` a hidden frame is treated like a frame without a face: its validity flag becomes false and
    its features are filled in the same way. So the network sees during training what missing frames look like:

    * `nearest`: the nearest frame that is present, as the cache does at test time (`past`: the last one before it);
    * `zero`: zeros (after normalisation: the average frame).

    `elements` sets single numbers to 0 without rescaling, as in min2024's code, and does not change the flags.

    Args:
        form: what is hidden.
        ratio: expected share that is hidden.
        fill: what replaces hidden and missing frames.
        past: Later frames fill nothing, as in a causal head.
    """

    def __init__(self, form: MaskForm, ratio: float, fill: MaskFill, past: bool = False) -> None:
        super().__init__()
        self.form, self.ratio, self.fill, self.past = form, ratio, fill, past

    def forward(
        self, features: torch.Tensor, valid: torch.Tensor, inside: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Hide and fill.

        Args:
            features: `[B, T, D]`, missing frames already filled with the nearest one.
            valid: `[B, T]` bool, frames with a face.
            inside: `[B, T]` bool, false for padding.

        Returns:
            The features and the flags that the network sees.
        """
        hide = self.training and self.form != "none"
        if hide and self.form == "elements":
            features = features * (torch.rand_like(features) >= self.ratio)
        elif hide:
            seen = valid & ~self._hidden(features.shape[0], features.shape[1], features.device)
            if self.fill == "nearest":
                features = (fill_past if self.past else _nearest)(features, seen & inside)
            valid = seen
        if self.fill == "zero":
            features = torch.where(valid[..., None], features, features.new_zeros(()))
        return features, valid

    def _hidden(self, batch: int, time: int, device: torch.device) -> torch.Tensor:
        """Draw `[batch, time]` bool, of which an expected share of `ratio` is true."""
        if self.form == "frames":
            return torch.rand(batch, time, device=device) < self.ratio
        # A two-state Markov chain whose spans have mean length SPAN and cover a share of `ratio`.
        leave, enter = 1 / SPAN, min(1.0, self.ratio / max(1e-6, 1 - self.ratio) / SPAN)
        draws = torch.rand(time, batch, device=device)
        state = draws[0] < self.ratio
        states = [state]
        for draw in draws[1:]:
            state = torch.where(state, draw >= leave, draw < enter)
            states.append(state)
        return torch.stack(states, dim=1)


def fill_past(features: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Replace rows of `[B, T, D]` that are not `seen` `[B, T]` by the last seen row before them; zeros before any."""
    steps = torch.arange(features.shape[1], device=features.device)
    last = torch.where(seen, steps, -1).cummax(dim=1).values[..., None]
    filled = features.gather(1, last.clamp_min(0).expand_as(features))
    return torch.where(last >= 0, filled, features.new_zeros(()))


def _nearest(features: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Replace rows that are not `seen` by the nearest seen row. If no row is seen, nothing changes."""
    time = features.shape[1]
    steps = torch.arange(time, device=features.device).expand_as(seen)
    before = torch.where(seen, steps, -10 * time).cummax(dim=1).values
    after = torch.where(seen, steps, 10 * time).flip(1).cummin(dim=1).values.flip(1)
    source = torch.where(steps - before <= after - steps, before, after)
    source = torch.where(seen | ~seen.any(dim=1, keepdim=True), steps, source).clamp(0, time - 1)
    return features.gather(1, source[..., None].expand_as(features))
