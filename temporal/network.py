"""The network of a temporal head, the same for all recipes: masking, fusion, optional TCN and Transformer, readout."""

from collections.abc import Sequence

import torch
from torch import nn

from checkpoints.errors import UserError
from temporal.fusion import AttentionFusion, Concatenate, GatedFusion, Mean
from temporal.layers import TCN, FrameBatchNorm, Transformer
from temporal.masking import RandomMasking, fill_past
from temporal.recipes import Architecture


class HeadNetwork(nn.Module):
    """The network of a head, with `out_dim` outputs per frame, for caches of the widths `dims`."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, architecture: Architecture, dims: Sequence[int], out_dim: int) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.dims = tuple(dims)
        total = sum(dims)
        self.register_buffer("mean", torch.zeros(total))
        self.register_buffer("std", torch.ones(total))
        self.causal = a.tcn_causal and a.attention_causal
        self.masking = RandomMasking(a.mask_form, a.mask_ratio, a.mask_fill, past=self.causal)
        if a.fusion == "attention" and len(self.dims) != 2:
            raise UserError(
                f"attention fusion joins two feature caches, but got {len(self.dims)}: pass --features MAIN AUX"
            )
        self.fuse: AttentionFusion | GatedFusion | Mean | Concatenate
        twice = 2 if a.deviation else 1
        if a.fusion == "gated":
            self.fuse = GatedFusion([dim * twice for dim in self.dims], a.fusion_width)
            dim = self.fuse.dim
        else:
            if a.fusion == "attention":
                self.fuse = AttentionFusion(self.dims, a.fusion_width)
            else:
                self.fuse = Mean(self.dims) if a.fusion == "mean" else Concatenate(self.dims)
            dim = self.fuse.dim * twice
        dim += len(self.dims) if a.valid_flag else 0
        self.tcn = TCN(dim, a.tcn_channels, a.tcn_kernel, a.tcn_causal, a.dropout) if a.tcn_channels else None
        dim = a.tcn_channels[-1] if a.tcn_channels else dim
        self.transformer = None
        if a.layers:
            self.transformer = Transformer(
                dim,
                a.width,
                a.layers,
                a.attention_heads,
                a.feedforward,
                positions=a.positions,
                norm_first=a.norm_first,
                causal=a.attention_causal,
                dropout=a.dropout,
            )
            dim = a.width
        dim = dim * a.window if a.readout == "last" else dim
        self.hidden = nn.Linear(dim, a.hidden) if a.hidden else None
        self.hidden_norm = FrameBatchNorm(a.hidden) if a.hidden and a.hidden_norm else None
        self.readout = nn.Linear(a.hidden or dim, out_dim)

    def forward(self, features: torch.Tensor, valid: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Compute the outputs of a batch of windows.

        Args:
            features: `[B, T, D]`, the caches' features concatenated, with gaps filled.
            valid: `[B, T, C]` bool, one flag per cache.
            inside: `[B, T]` bool, false for padding.

        Returns:
            `[B, T, out_dim]`; with `readout="last"` all frames except the last are 0.
        """
        a = self.architecture
        x = (features.float() - self.mean) / self.std
        if self.causal:  # caches fill gaps with the nearest frame, which may be a later one
            x = torch.cat([fill_past(part, here & inside) for part, here in self._by_cache(x, valid)], dim=-1)
        x, flags = self._mask(x, valid, inside)
        if a.cache_dropout and self.training and len(self.dims) > 1:
            x, flags = self._drop_caches(x, flags)
        if isinstance(self.fuse, GatedFusion):
            known = flags & inside[..., None]
            x = self.fuse([self._with_deviation(part, here) for part, here in self._by_cache(x, known)], known)
        else:
            x = self._with_deviation(self.fuse(x), flags.any(dim=-1) & inside)
        if a.valid_flag:
            x = torch.cat([x, flags.to(x.dtype)], dim=-1)
        if self.tcn is not None:
            x = self.tcn(x, inside)
        if self.transformer is not None:
            x = self.transformer(x, inside)
        if a.readout == "last":
            x = x.flatten(1)[:, None]
        if self.hidden is not None:
            x = self.hidden(x)
            if self.hidden_norm is not None:
                x = self.hidden_norm(x, inside[:, -1:] if a.readout == "last" else inside)
            if a.hidden_activation:
                x = nn.functional.gelu(x)
        x = self.readout(x)
        if a.readout == "last":
            x = torch.cat([x.new_zeros(x.shape[0], features.shape[1] - 1, x.shape[-1]), x], dim=1)
        return x

    def _by_cache(self, x: torch.Tensor, flags: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The features `[B, T, D]` and flags `[B, T]` of each cache."""
        return list(zip(x.split(self.dims, dim=-1), flags.unbind(-1), strict=True))

    def _mask(self, x: torch.Tensor, valid: torch.Tensor, inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mask all caches together, as when a face is lost; in a gated head each on its own."""
        if isinstance(self.fuse, GatedFusion):
            masked = [self.masking(part, here, inside) for part, here in self._by_cache(x, valid)]
            return torch.cat([part for part, _ in masked], dim=-1), torch.stack([flag for _, flag in masked], dim=-1)
        seen = valid.any(dim=-1)
        x, shown = self.masking(x, seen, inside)
        return x, valid & (shown | ~seen)[..., None]

    def _with_deviation(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Append the deviation from the mean of the known frames (in a causal head, of those so far), if asked for."""
        if not self.architecture.deviation:
            return x
        weight = known[..., None].to(x.dtype)
        if self.causal:
            mean = (x * weight).cumsum(1) / weight.cumsum(1).clamp_min(1)
        else:
            mean = (x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1)
        return torch.cat([x, x - mean], dim=-1)

    def _drop_caches(self, x: torch.Tensor, flags: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Hide whole caches from samples. Every sample keeps at least one."""
        keep = torch.rand(len(x), len(self.dims), device=x.device) >= self.architecture.cache_dropout
        spared = torch.randint(len(self.dims), (len(x),), device=x.device)
        keep[torch.arange(len(x), device=x.device), spared] = True
        wide = torch.cat([keep[:, i : i + 1].expand(-1, dim) for i, dim in enumerate(self.dims)], dim=1)
        return x * wide[:, None], flags & keep[:, None]
