"""Combines the features of several caches, frame by frame.

`Concatenate` and `Mean` are the simple forms. `AttentionFusion` is nguyen2024 (Nguyen et al., CVPRW 2024) as in its
code: the 1,024 numbers of a frame are a sequence of 1,024 one-dimensional tokens. `GatedFusion` joins caches that go
missing independently, such as faces and sound.
"""

from collections.abc import Sequence

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
            raise UserError(f"mean fusion needs caches of equal width, but got {dims}: choose another --fusion")
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


class GatedFusion(nn.Module):
    """Weighs the caches against each other, number by number and frame by frame, by what each of them shows.

    After the gated multimodal unit (Arevalo et al., arXiv 1702.01992): `sum over caches of w tanh(W f)`, where `w` is
    the softmax over the caches of `U tanh(W f)`. The gate of a cache does not look at the others, so a cache that is
    missing changes nothing: its weight is 0. In a frame that no cache has, those count that the window has at all
    (filled with their nearest frames); if there is none, the result is 0.

    Args:
        dims: widths of the caches.
        width: width of the result.
    """

    def __init__(self, dims: Sequence[int], width: int) -> None:
        super().__init__()
        self.dim = width
        self.project = nn.ModuleList(nn.Linear(dim, width) for dim in dims)
        self.gate = nn.ModuleList(nn.Linear(width, width) for _ in dims)

    def forward(self, parts: Sequence[torch.Tensor], known: torch.Tensor) -> torch.Tensor:
        """Join the caches.

        Args:
            parts: features of each cache, `[B, T, D]`.
            known: `[B, T, C]` bool, where each cache has features of its own.

        Returns:
            `[B, T, width]`.
        """
        anywhere = known.any(dim=1, keepdim=True) & ~known.any(dim=-1, keepdim=True)
        counts = (known | anywhere)[..., None, :]
        shown = torch.stack(
            [torch.tanh(project(part)) for project, part in zip(self.project, parts, strict=True)], dim=-1
        )
        gates = torch.stack([gate(shown[..., i]) for i, gate in enumerate(self.gate)], dim=-1)
        weights = gates.masked_fill(~counts, -1e4).softmax(dim=-1)
        return torch.where(counts, weights * shown, shown.new_zeros(())).sum(dim=-1)
