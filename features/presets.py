"""Published encoders by short names, with the pooling that suits their features; docs/weights.md has their licences.

Mean, standard deviation and image size are those that timm publishes with the weights.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from features.settings import Extract


@dataclass(frozen=True)
class Preset:
    """A published encoder.

    Attributes:
        encoder: `timm:NAME`.
        pooling: How its tokens become one vector.
    """

    encoder: str
    pooling: Literal["cls", "mean", "cls_mean", "model"]


PRESETS = {
    # Self-supervised. The class token alone knows the picture, the patches where things are; its authors use both.
    "dinov3": Preset("timm:vit_base_patch16_dinov3.lvd1689m", "cls_mean"),
    # Class token, and the activation that OpenAI trained with (timm's name without `quickgelu` has another one).
    "clip": Preset("timm:vit_base_patch16_clip_quickgelu_224.openai", "model"),
    # Its own attention pooling: there is no class token.
    "siglip": Preset("timm:vit_base_patch16_siglip_224.v2_webli", "model"),
    "mae": Preset("timm:vit_base_patch16_224.mae", "mean"),
}


def resolved(config: Extract) -> Extract:
    """The options with the name of a preset replaced by what it stands for; a folder of that name comes first."""
    preset = PRESETS.get(config.encoder)
    if preset is None or Path(config.encoder).exists():
        return config
    return replace(config, encoder=preset.encoder, pooling=config.pooling or preset.pooling)
