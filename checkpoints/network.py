"""The network of an encoder: a timm image model, with normalisation before it and pooling after it."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import timm
import torch
from torch import nn

from checkpoints.errors import UserError
from checkpoints.forms import Size
from checkpoints.reading import shown
from checkpoints.tensors import load_weights

SQUEEZE = "squeeze."
LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in a grey picture (ITU-R BT.601)."""
BUILD_FAULTS = (RuntimeError, TypeError, ValueError, AssertionError, AttributeError, LookupError, ArithmeticError)
"""What networks raise when the sizes that they are given do not fit together."""
POOLINGS = ("cls", "mean", "cls_mean", "grid", "model")


@dataclass(frozen=True)
class EncoderConfig:
    """What an encoder is and what it expects.

    Attributes:
        architecture: Name of a timm model.
        image_size: Side of the square input in pixels.
        kwargs: Further arguments of `timm.create_model` (`patch_size`, `embed_dim`, `depth`, ...). With `in_chans` 1
            the network sees grey pictures, whatever it is given.
        mean: Per-channel mean, subtracted from images scaled to [0, 1].
        std: Per-channel standard deviation that images are divided by.
        pooling: How tokens become one vector: `cls`; `mean` (of the patch tokens); `cls_mean` (both, concatenated);
            `grid` (a linear layer squeezes each patch token to `grid_channels`, and the results are concatenated: in
            an aligned face, a position tells which part of the face it shows); or `model` (whatever the timm model
            does before its classifier; the only choice for networks without tokens).
        grid_channels: Channels per patch token with `grid`.
    """

    architecture: str
    image_size: Size
    kwargs: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pooling: str = "mean"
    grid_channels: int = 32

    def __post_init__(self) -> None:
        """Check the values that come from files and command lines."""
        if self.pooling not in POOLINGS:
            raise UserError(f"pooling {shown(self.pooling)} is not one of {', '.join(POOLINGS)}")


class Encoder(nn.Module):
    """A timm backbone, with normalisation before it and pooling after it.

    Args:
        config: What to build.
        provenance: How and on what the weights were trained, as recorded by the stage that trained them
            (`stage`, `recipe`, `synthetic`, `unlabelled_videos`, `labelled_videos`, `chosen_on`, `synthetic_labels`).
        pretrained: Let timm download its published weights for the architecture.
    """

    mean: torch.Tensor
    std: torch.Tensor
    backbone: Any  # a timm model; attributes differ between them

    def __init__(
        self, config: EncoderConfig, *, provenance: dict[str, Any] | None = None, pretrained: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.provenance = provenance or {}
        self.fingerprint = ""
        arguments = {**config.kwargs, "img_size": config.image_size}
        if not timm.is_model(config.architecture):  # which might else be an address to download from
            raise UserError(f"timm has no model {shown(config.architecture)}")
        create = partial(timm.create_model, config.architecture, pretrained=pretrained, num_classes=0)
        try:
            try:
                self.backbone = create(**arguments)
            except TypeError as error:
                if "img_size" not in str(error):
                    raise
                arguments.pop("img_size")  # convolutional networks accept images of any size
                self.backbone = create(**arguments)
        except BUILD_FAULTS as error:
            given = shown(arguments, 200)
            raise UserError(
                f"timm cannot build {config.architecture!r} with {given}: {shown(str(error), 200)}"
            ) from None
        self.arguments = arguments
        self.grey = config.kwargs.get("in_chans", 3) == 1
        if not hasattr(self.backbone, "patch_embed"):
            self.backbone.to(memory_format=torch.channels_last)  # convolutions are up to twice as fast on a CPU
        self.squeeze: nn.Linear | None = None
        if config.pooling == "grid":
            self.squeeze = nn.Linear(int(self.backbone.num_features), config.grid_channels)
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1), persistent=False)

    @property
    def dim(self) -> int:
        """Length of the feature vector."""
        if self.squeeze is not None:
            return int(self.backbone.patch_embed.num_patches) * self.config.grid_channels
        if self.config.pooling == "model":
            return int(self.backbone.head_hidden_size)  # in MobileNets and similar networks wider than the last stage
        return int(self.backbone.num_features) * (2 if self.config.pooling == "cls_mean" else 1)

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights to store: the backbone's under timm's names, and the pooling's if it has any."""
        pooling = {} if self.squeeze is None else self.squeeze.state_dict()
        return self.backbone.state_dict() | {f"{SQUEEZE}{name}": tensor for name, tensor in pooling.items()}

    def load(self, weights: dict[str, torch.Tensor], *, source: object) -> None:
        """Load what :meth:`weights` returned.

        Raises:
            UserError: Keys are missing, unknown or have the wrong shape; the message lists them.
        """
        pooling = {name.removeprefix(SQUEEZE): w for name, w in weights.items() if name.startswith(SQUEEZE)}
        if self.squeeze is not None:
            load_weights(self.squeeze, pooling, source=source)
        backbone = {name: tensor for name, tensor in weights.items() if not name.startswith(SQUEEZE)}
        load_weights(self.backbone, backbone, source=source)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise uint8 images `[B, 3, H, W]` for the backbone; a grey one gets `[B, 1, H, W]`."""
        normal = (images.to(self.mean.dtype) / 255 - self.mean) / self.std
        if not self.grey:
            return normal
        return (normal * normal.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 images `[B, 3, H, W]` to features `[B, dim]`."""
        tokens = self.backbone.forward_features(self.normalise(images))
        pooling = self.config.pooling
        if pooling == "model":
            return self.backbone.forward_head(tokens, pre_logits=True)
        prefix = self.backbone.num_prefix_tokens
        if self.squeeze is not None:
            return self.squeeze(tokens[:, prefix:]).flatten(1)
        if pooling == "cls":
            return tokens[:, 0]
        mean = tokens[:, prefix:].mean(dim=1)
        return mean if pooling == "mean" else torch.cat([tokens[:, 0], mean], dim=1)
