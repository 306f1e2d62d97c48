"""One encoder looking at one view: what a feature is, in extraction and in inference."""

import hashlib
import json
from dataclasses import replace

import torch

from checkpoints.encoder import encoder_fingerprint
from checkpoints.errors import UserError
from checkpoints.framing import UNKNOWN, Framing
from checkpoints.network import Encoder


class Embedder:
    """Pictures of a view to features.

    Args:
        encoder: In evaluation mode, on its device.
        view: The view that the pictures show; they are already cut and resized.
        flip: Average the features of each picture and its mirror image.
        framing: How the faces are framed.
    """

    def __init__(self, encoder: Encoder, view: str = "full", flip: bool = False, framing: Framing = UNKNOWN) -> None:
        self.encoder, self.view, self.flip, self.framing = encoder, view, flip, framing

    @property
    def feature_id(self) -> str:
        """Identifies what a feature means.

        It is a hash of weights, architecture, input size, normalisation, pooling, view, flip and framing.
        """
        content = json.dumps([self.encoder.fingerprint, self.view, self.flip, self.framing.identity])
        return hashlib.sha256(content.encode()).hexdigest()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 images `[B, 3, S, S]` to features `[B, dim]` float32."""
        features = self.encoder(images).float()
        return (features + self.encoder(images.flip(-1)).float()) / 2 if self.flip else features


def with_pooling(encoder: Encoder, pooling: str | None) -> Encoder:
    """The same encoder with another pooling (None: as it is).

    Raises:
        UserError: The network has no tokens, or normalises only after its own pooling.
    """
    if pooling is None or pooling == encoder.config.pooling:
        return encoder
    backbone = encoder.backbone
    if pooling != "model" and not hasattr(backbone, "num_prefix_tokens"):
        raise UserError(f"{encoder.config.architecture} has no tokens to pool by {pooling!r}: leave --pooling out")
    if pooling in ("cls", "cls_mean") and getattr(backbone, "cls_token", None) is None:
        raise UserError(f"{encoder.config.architecture} has no class token: use --pooling mean, or leave it out")
    if pooling != "model" and isinstance(getattr(backbone, "norm", None), torch.nn.Identity):
        raise UserError(
            f"this {encoder.config.architecture} normalises its features after its own pooling, so that its tokens "
            f"cannot be pooled by {pooling!r}: leave --pooling out"
        )
    other = Encoder(replace(encoder.config, pooling=pooling), provenance=encoder.provenance)
    other.backbone.load_state_dict(backbone.state_dict())
    other.fingerprint = encoder_fingerprint(encoder.fingerprint, other.config)
    return other.eval()
