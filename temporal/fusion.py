"""Combines the features of several caches, frame by frame.

`Concatenate` and `Mean` are the simple forms. `AttentionFusion` is nguyen2024 (Nguyen et al., CVPRW 2024) as in its
code: the 1,024 numbers of a frame are a sequence of 1,024 one-dimensional tokens.
"""

import torch
from torch import nn

from checkpoints.errors import UserError

# Frames per attention call: each frame needs 1024 x 1024 scores, which are 4 MiB if they are stored.
_CHUNK = 64


class Concatenate(nn.Module):
    """Keep the concatenated features `[..., D1 + D2 + ...]` as they are."""

    def __init__(self, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.dim = sum(dims)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` unchanged."""
        return x


class Mean(nn.Module):
    """Mean of the caches' features. It makes sense for encoders that were fine-tuned from the same weights.

    Args:
        dims: widths of the caches, all equal.

    Raises:
        UserError: the widths differ.
    """

    def __init__(self, dims: tuple[int, ...]) -> None:
        super().__init__()
        if len(set(dims)) > 1:
            raise UserError(f"mean fusion needs caches of equal width, {dims} given: choose another --fusion")
        self.dims, self.dim = dims, dims[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., D1 + D2 + ...]` -> `[..., D1]`."""
        return x.unflatten(-1, (len(self.dims), self.dim)).mean(dim=-2)


class AttentionFusion(nn.Module):
    """Attention between the scalars of a main and an auxiliary view.

    `x1 = W1 f1`, `x2 = W2 f2`, `k = W [x1; x2]`; `x1 + attention(query = x2, key = k, value = x1)` with one
    head of one dimension over the `width` scalars.

    Args:
        dims: widths of the two caches, the main view first.
        width: length of the scalar sequence (1,024 in the paper).
    """

    def __init__(self, dims: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.dims = dims
        self.dim = width
        self.main, self.auxiliary = (nn.Linear(dim, width) for dim in dims)
        self.key = nn.Linear(2 * width, width)
        self.attention = nn.MultiheadAttention(1, 1, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, T, D1 + D2]` -> `[B, T, width]`."""
        first, second = x.flatten(0, 1).split(self.dims, dim=-1)
        x1, x2 = self.main(first), self.auxiliary(second)
        key = self.key(torch.cat([x1, x2], dim=-1))
        parts = [
            self.attention(q[..., None], k[..., None], v[..., None], need_weights=False)[0][..., 0]
            for q, k, v in zip(x2.split(_CHUNK), key.split(_CHUNK), x1.split(_CHUNK), strict=True)
        ]
        return (torch.cat(parts) + x1).view(*x.shape[:-1], self.dim)
