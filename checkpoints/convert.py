"""Convert weights of other programs to an encoder directory, and back.

    python checkpoints/convert.py mae_pretrain_vit_base.pth --out encoders/mae
    python checkpoints/convert.py timm:vit_base_patch16_224.mae --out encoders/timm-mae --image-size 112
    python checkpoints/convert.py runs/mae --to mae --out mae_faces.pth

Reads facebookresearch/mae (encoder, encoder with decoder, fine-tuned classifier), MAE-Face, FMAE, timm (file, folder or
name) and our own directories. Never executes code from a file. See docs/weights.md.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from checkpoints.errors import UserError, guarded
from checkpoints.lock import locked
from checkpoints.ranges import check_ranges

FILE_OPTIONS = ("architecture", "heads", "decoder_heads", "drop")  # directories and timm models know these themselves


@dataclass(frozen=True)
class Convert:
    """Read the weights of one program and write them for another."""

    source: tyro.conf.Positional[str]
    """.pth or .safetensors file, encoder directory (ENC, RUN, a timm model's folder) or timm:NAME."""
    out: Path
    """Directory to write; with --to mae a .pth file."""
    to: Literal["encoder", "mae"] = "encoder"
    """encoder: our encoder directory; mae: a file with the keys of facebookresearch/mae."""
    image_size: int = 0
    """Resize the position embeddings to this image size in pixels; 0: keep them."""
    pooling: Literal["auto", "cls", "mean", "cls_mean", "model"] = "auto"
    """How tokens become features; auto: as the classifier in the file does, otherwise the mean of the patch tokens."""
    architecture: str = ""
    """timm model that the weights in a file belong to, if it is not a plain Vision Transformer."""
    heads: int = 0
    """Attention heads of the encoder, which no file records; 0: inferred from the width (768: 12, 1024: 16, ...)."""
    decoder_heads: int = 0
    """Attention heads of the decoder; 0: inferred from the width (512: 16)."""
    drop: tuple[str, ...] = ()
    """Leave out keys with one of these prefixes (other classifiers, ...)."""
    half: bool = False
    """Store the encoder and its decoder in half precision, to ship them."""


def main(config: Convert) -> None:
    """Convert.

    Raises:
        UserError: The source cannot be read, or its keys do not fit; the message lists those that are missing or
            unknown or have the wrong shape.
    """
    check_ranges(config)
    from checkpoints import conversion

    source = Path(config.source)
    is_file = not source.is_dir() and not config.source.startswith("timm:")
    if is_file and not source.is_file():
        raise UserError(f"{source} does not exist: give a .pth or .safetensors file, a directory or timm:NAME")
    given = {name: getattr(config, name) for name in FILE_OPTIONS if getattr(config, name)}
    if given and not is_file:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UserError(
            f"{options}: only for .pth and .safetensors files; {config.source} already says what it is, so leave the "
            "option out"
        )
    weights = conversion.read_file(source, **given) if is_file else conversion.read_encoder(config.source)
    if config.pooling != "auto":
        conversion.rebuild(weights, pooling=config.pooling)
    if config.image_size:
        conversion.resize(weights, config.image_size)
    if config.to == "mae":
        conversion.write_mae(config.out, weights)
    else:
        recipe = {"source": source.name, "image_size": config.image_size, "pooling": config.pooling}
        with locked(config.out):
            conversion.write_encoder(config.out, weights, recipe=recipe, half=config.half)
    settings = weights.encoder.config
    size = sum(parameter.numel() for parameter in weights.encoder.parameters()) / 1e6
    for note in weights.notes:
        print(f"note: {note}")
    print(
        f"{config.out}: {settings.architecture}, {size:.1f} M weights, {settings.image_size} px, pooling "
        f"{settings.pooling}, mean {settings.mean}, std {settings.std}, "
        + ("decoder {dim} x {depth}".format(**weights.settings) if weights.settings else "no decoder")
    )


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Convert, description=__doc__)))
