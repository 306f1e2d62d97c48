"""Masked autoencoder (He et al. 2021, arXiv 2111.06377) on a timm Vision Transformer."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from timm.layers import LayerNorm, build_sincos2d_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from checkpoints.errors import UserError
from checkpoints.network import Encoder


@dataclass(frozen=True)
class DecoderConfig:
    """Size of the decoder, which only stage 1 uses: width of its tokens, number of blocks, heads per block."""

    dim: int
    depth: int
    num_heads: int


class MaskedPatches(NamedTuple):
    """The network's predictions for the masked patches.

    Attributes:
        loss: Mean squared error over masked patches, a scalar.
        predicted: `[B, M, patch_size**2 * 3]`, in the units of the loss (normalised per patch with `norm_pix_loss`).
        target: The original patches in the same form.
        masked: `[B, M]`, indices of the masked patches.
    """

    loss: torch.Tensor
    predicted: torch.Tensor
    target: torch.Tensor
    masked: torch.Tensor


class MaskedAutoencoder(nn.Module):
    """Masked autoencoder: encodes the visible patches, decodes all patches, compares the masked ones.

    Args:
        encoder: Its backbone must be a timm `VisionTransformer` with a class token and a final norm. Register tokens
            take part in the encoder and are not decoded.
        decoder: Size of the decoder.
        mask_ratio: Fraction of patches that are masked.
        norm_pix_loss: Whether each target patch is normalised to mean 0 and variance 1.

    Raises:
        UserError: The encoder is not of this kind.
    """

    def __init__(self, encoder: Encoder, decoder: DecoderConfig, *, mask_ratio: float, norm_pix_loss: bool) -> None:
        super().__init__()
        backbone: Any = encoder.backbone
        if not isinstance(encoder.backbone, VisionTransformer) or backbone.cls_token is None:
            raise UserError(
                f"stage 1 needs a timm VisionTransformer with a class token, not {encoder.config.architecture}"
            )
        embed = backbone.patch_embed
        if (
            backbone.pos_embed is None
            or not isinstance(getattr(embed, "proj", None), nn.Conv2d)
            or not isinstance(getattr(embed, "norm", nn.Identity()), nn.Identity)
        ):
            raise UserError(
                f"stage 1 needs patches that are embedded by one convolution, and positions added to them: "
                f"{encoder.config.architecture} does not"
            )
        if isinstance(backbone.norm, nn.Identity):
            raise UserError(f"{encoder.config.architecture} has no final norm: set its global_pool='token'")
        self.encoder = encoder
        self.mask_ratio = mask_ratio
        self.norm_pix_loss = norm_pix_loss
        self.patch_size: int = backbone.patch_embed.patch_size[0]
        self.grid: int = backbone.patch_embed.grid_size[0]
        width = backbone.embed_dim
        self.decoder_embed = nn.Linear(width, decoder.dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder.dim))
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, self.grid**2 + 1, decoder.dim), requires_grad=False)
        self.decoder_blocks = nn.ModuleList(
            Block(decoder.dim, decoder.num_heads, qkv_bias=True, norm_layer=LayerNorm) for _ in range(decoder.depth)
        )
        self.decoder_norm = LayerNorm(decoder.dim)  # timm's epsilon is the paper's, 1e-6
        self.decoder_pred = nn.Linear(decoder.dim, self.patch_size**2 * 3)
        backbone.pos_embed.requires_grad = False

    def initialise(self) -> None:
        """Initialise all weights as in the paper: Xavier-uniform matrices, fixed sine-cosine positions."""
        self.apply(_initialise_linear)
        backbone = self.encoder.backbone
        nn.init.xavier_uniform_(backbone.patch_embed.proj.weight.view(backbone.embed_dim, -1))
        for position in (backbone.pos_embed, self.decoder_pos_embed):
            table = build_sincos2d_pos_embed([self.grid, self.grid], position.shape[-1], reverse_coord=True)
            position.data.zero_()
            position.data[0, -self.num_patches :] = table
        nn.init.normal_(backbone.cls_token, std=0.02)
        if backbone.reg_token is not None:
            nn.init.normal_(backbone.reg_token, std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)

    @property
    def num_patches(self) -> int:
        """Number of patches per image, L."""
        return self.grid**2

    def decoder_state(self) -> dict[str, torch.Tensor]:
        """Weights of everything but the encoder, by name."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("encoder.")}

    def patchify(self, images: torch.Tensor) -> torch.Tensor:
        """Cut images `[B, 3, H, W]` into patches `[B, L, patch_size**2 * 3]` (pixel by pixel, channels last)."""
        batch, p, g = images.shape[0], self.patch_size, self.grid
        patches = images.reshape(batch, 3, g, p, g, p).permute(0, 2, 4, 3, 5, 1)
        return patches.reshape(batch, g * g, p * p * 3)

    def unpatchify(self, patches: torch.Tensor) -> torch.Tensor:
        """Assemble patches `[B, L, patch_size**2 * 3]` into images `[B, 3, H, W]`."""
        batch, p, g = patches.shape[0], self.patch_size, self.grid
        images = patches.reshape(batch, g, g, p, p, 3).permute(0, 5, 1, 3, 2, 4)
        return images.reshape(batch, 3, g * p, g * p)

    def forward(self, images: torch.Tensor, noise: torch.Tensor) -> MaskedPatches:
        """Mask patches by the noise and reconstruct them.

        Args:
            images: uint8 `[B, 3, H, W]`.
            noise: `[B, L]`; the patches with the smallest values stay visible.
        """
        order = noise.argsort(dim=1)
        count = int(self.num_patches * (1 - self.mask_ratio))
        visible, masked = order[:, :count], order[:, count:]
        patches = _take(self.patchify(self.encoder.normalise(images)), order)
        seen, target = patches[:, :count], patches[:, count:]
        with _attention_kernel(images.device):
            predicted = self.decode(self.encode(seen, visible), order, masked)
        if self.norm_pix_loss:
            mean, variance = target.mean(dim=-1, keepdim=True), target.var(dim=-1, keepdim=True)
            target = (target - mean) / (variance + 1e-6).sqrt()
        loss = (predicted.float() - target).square().mean()
        return MaskedPatches(loss, predicted, target, masked)

    def encode(self, patches: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Run the encoder on the class token and the visible patches.

        Args:
            patches: `[B, V, patch_size**2 * 3]`, the visible patches; only these are embedded.
            visible: `[B, V]`, their indices.

        Returns:
            `[B, 1 + V, D]`.
        """
        backbone = self.encoder.backbone
        others = backbone.num_prefix_tokens  # the class token and the registers
        prefix = backbone.cls_token
        if backbone.reg_token is not None:
            prefix = torch.cat([prefix, backbone.reg_token], dim=1)
        if not backbone.no_embed_class:
            prefix = prefix + backbone.pos_embed[:, :others]
        projection = backbone.patch_embed.proj  # a convolution that steps by whole patches: one matrix for all of them
        matrix = projection.weight.permute(0, 2, 3, 1).flatten(1)
        tokens = (
            functional.linear(patches, matrix, projection.bias) + backbone.pos_embed[0, -self.num_patches :][visible]
        )
        tokens = backbone.norm_pre(torch.cat([prefix.expand(len(patches), -1, -1), tokens], dim=1))
        for block in backbone.blocks:
            tokens = block(tokens)
        tokens = backbone.norm(tokens)
        return tokens if others == 1 else torch.cat([tokens[:, :1], tokens[:, others:]], dim=1)

    def decode(self, latent: torch.Tensor, order: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        """Predict the pixels of the masked patches from the encoded visible ones.

        Args:
            latent: `[B, 1 + V, D]`, from :meth:`encode`.
            order: `[B, L]`, indices of all patches, visible ones first.
            masked: `[B, M]`, indices of the masked patches.

        Returns:
            `[B, M, patch_size**2 * 3]`.
        """
        tokens = self.decoder_embed(latent)
        hidden = self.mask_token.expand(*masked.shape, -1).to(tokens.dtype)
        in_order = torch.cat([tokens[:, 1:], hidden], dim=1)
        in_place = _take(in_order, order.argsort(dim=1))
        tokens = torch.cat([tokens[:, :1], in_place], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks[:-1]:
            tokens = block(tokens)
        last: Any = self.decoder_blocks[-1]
        # After the last attention, tokens no longer interact: go on with the masked ones alone.
        tokens = tokens + last.attn(last.norm1(tokens))
        tokens = _take(tokens[:, 1:], masked)
        tokens = tokens + last.mlp(last.norm2(tokens))
        return self.decoder_pred(self.decoder_norm(tokens))

    @torch.no_grad()
    def reconstruct(self, images: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw what the network sees and what it predicts, with the visible patches pasted in.

        With `norm_pix_loss`, predictions get the mean and variance of the original patches; otherwise they would look
        like noise.

        Args:
            images: uint8 `[B, 3, H, W]`.
            noise: `[B, L]`.

        Returns:
            uint8 images `[B, 3, H, W]`: the input with grey masked patches, and the prediction.
        """
        result = self(images, noise)
        patches = self.patchify(self.encoder.normalise(images))
        predicted = result.predicted.float()
        if self.norm_pix_loss:
            original = _take(patches, result.masked)
            predicted = predicted * (original.var(dim=-1, keepdim=True) + 1e-6).sqrt()
            predicted = predicted + original.mean(dim=-1, keepdim=True)
        place = result.masked.unsqueeze(-1).expand_as(predicted)
        return tuple(
            self._to_uint8(self.unpatchify(patches.scatter(1, place, fill)))
            for fill in (torch.zeros_like(predicted), predicted)
        )  # type: ignore[return-value]

    def _to_uint8(self, pixels: torch.Tensor) -> torch.Tensor:
        return ((pixels * self.encoder.std + self.encoder.mean) * 255).round().clamp(0, 255).to(torch.uint8)


def _take(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Pick tokens `[B, N, D]` by index `[B, K]`."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def _attention_kernel(device: torch.device) -> AbstractContextManager[None]:
    """Use plain matrix products for bf16 on CPUs, where the fused kernel's backward pass is slower.

    Forward and backward of one encoder layer of ViT-B, 8 pictures on one core: 7 ms instead of 16.
    """
    plain = device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()


def _initialise_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
