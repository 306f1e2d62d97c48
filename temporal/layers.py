"""Sequence layers of the heads: temporal convolutions, a Transformer encoder, masked batch normalisation.

All take `[B, T, D]` and `inside` `[B, T]` bool. Outputs of frames inside do not depend on padding: a padded window and
the shorter sequence alone give the same numbers.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from checkpoints.errors import UserError


class TemporalBlock(nn.Module):
    """Two dilated, weight-normalised convolutions with a residual (Bai et al. 2018; PReLU as in ling2024).

    Args:
        dim_in: input channels.
        dim_out: output channels.
        kernel: kernel size, odd unless causal.
        dilation: frames between taps of the kernel.
        causal: see past frames only; otherwise centred.
        dropout: after each convolution.
    """

    def __init__(self, dim_in: int, dim_out: int, kernel: int, dilation: int, causal: bool, dropout: float) -> None:
        super().__init__()
        reach = (kernel - 1) * dilation
        self.padding = (reach, 0) if causal else (reach // 2, reach - reach // 2)
        convs = [nn.Conv1d(dim, dim_out, kernel, dilation=dilation) for dim in (dim_in, dim_out)]
        residual = nn.Conv1d(dim_in, dim_out, 1) if dim_in != dim_out else None
        for conv in [*convs, *([residual] if residual is not None else [])]:
            nn.init.normal_(conv.weight, 0, 0.01)
        self.convs = nn.ModuleList(weight_norm(conv) for conv in convs)
        self.residual = residual
        self.activations = nn.ModuleList(nn.PReLU() for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """`[B, C, T]` and `keep` `[B, 1, T]` (0 for padding) -> `[B, C', T]`."""
        y = x
        for conv, activation in zip(self.convs, self.activations, strict=False):
            y = self.dropout(activation(conv(F.pad(y * keep, self.padding))))
        x = x if self.residual is None else self.residual(x)
        return self.activations[2](x + y)


class TCN(nn.Module):
    """A stack of :class:`TemporalBlock` of the widths `channels`, with dilations 1, 2, 4, ..."""

    def __init__(self, dim: int, channels: tuple[int, ...], kernel: int, causal: bool, dropout: float) -> None:
        super().__init__()
        widths = (dim, *channels)
        self.blocks = nn.ModuleList(
            TemporalBlock(a, b, kernel, 2**i, causal, dropout)
            for i, (a, b) in enumerate(zip(widths, channels, strict=False))
        )

    def forward(self, x: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """`[B, T, D]` -> `[B, T, channels[-1]]`."""
        keep = inside[:, None].to(x.dtype)
        x = x.transpose(1, 2)
        for block in self.blocks:
            x = block(x, keep)
        return x.transpose(1, 2)


class Transformer(nn.Module):
    """A Transformer encoder with a padding mask.

    Args:
        dim: input width; projected to `width` if they differ.
        width: of the encoder.
        layers: number of layers.
        heads: attention heads.
        feedforward: width of the hidden layer.
        positions: add sinusoidal positions.
        norm_first: pre-norm with GELU; otherwise post-norm with ReLU, as in both papers.
        causal: attend to past frames only.
        dropout: in each layer.

    Raises:
        UserError: the width is not divisible by the number of heads.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        layers: int,
        heads: int,
        feedforward: int,
        *,
        positions: bool,
        norm_first: bool,
        causal: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"width {width} is not divisible by {heads} attention heads: change one of them")
        self.project = nn.Linear(dim, width) if dim != width else nn.Identity()
        layer = nn.TransformerEncoderLayer(
            width,
            heads,
            feedforward,
            dropout,
            activation="gelu" if norm_first else "relu",
            batch_first=True,
            norm_first=norm_first,
        )
        norm = nn.LayerNorm(width) if norm_first else None
        self.encoder = nn.TransformerEncoder(layer, layers, norm, enable_nested_tensor=False)
        self.positions = positions
        self.causal = causal

    def forward(self, x: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """`[B, T, D]` -> `[B, T, width]`."""
        x = self.project(x)
        if self.positions:
            x = x + sinusoids(x.shape[1], x.shape[2], x.device).to(x.dtype)
        # Without padding no mask is needed, and attention uses its fast kernel.
        # (An exported graph must cover both cases.)
        padding = None if not torch.compiler.is_exporting() and bool(inside.all()) else ~inside
        causal = _causal_mask(x.shape[1], x.device) if self.causal else None
        return self.encoder(x, mask=causal, src_key_padding_mask=padding, is_causal=self.causal)


def sinusoids(time: int, width: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """`[time, width]` positions of Vaswani et al. 2017: sines in the even columns, cosines in the odd ones."""
    position = torch.arange(time, device=device)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10_000.0) / width))
    table = torch.zeros(time, width, device=device)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)[:, : width // 2]
    return table


def _causal_mask(time: int, device: torch.device) -> torch.Tensor:
    return torch.ones(time, time, dtype=torch.bool, device=device).triu(1)


class FrameBatchNorm(nn.BatchNorm1d):
    """Batch normalisation over frames, with padding excluded from the statistics."""

    def forward(self, x: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """`[B, T, D]` -> the same shape; in training, padded frames become 0."""
        if not self.training:
            return super().forward(x.flatten(0, 1)).view_as(x)
        out = torch.zeros_like(x)
        # Computed in float32 regardless of autocast, like BatchNorm itself.
        out[inside] = super().forward(x[inside]).to(x.dtype)
        return out
