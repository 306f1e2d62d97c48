"""Weights of other programs to an encoder directory, and back.

    python checkpoints/convert.py mae_pretrain_vit_base.pth --out encoders/mae
    python checkpoints/convert.py timm:vit_base_patch16_224.mae --out encoders/timm-mae --image-size 112
    python checkpoints/convert.py runs/mae --to mae --out mae_faces.pth

Reads facebookresearch/mae (encoder, encoder with decoder, fine-tuned classifier), MAE-Face, FMAE, timm (file, folder or
name) and our own directories. Nothing in a file is executed. See docs/weights.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from checkpoints.errors import UserError, guarded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from checkpoints.encoder import Encoder
    from checkpoints.layouts import Tensors

FILE_OPTIONS = ("architecture", "heads", "decoder_heads", "drop")  # what a directory and timm say themselves


@dataclass(frozen=True)
class Convert:
    """Read weights of one program and write them for another."""

    source: tyro.conf.Positional[str]
    """.pth or .safetensors file, encoder directory (ENC, RUN, a timm model's folder) or timm:NAME."""
    out: Path
    """Directory to write; with --to mae a .pth file."""
    to: Literal["encoder", "mae"] = "encoder"
    """encoder: our encoder directory; mae: a file with the keys of facebookresearch/mae."""
    image_size: int = 0
    """Resize the position embeddings for pictures of so many pixels; 0: as they are."""
    pooling: Literal["auto", "cls", "mean", "cls_mean", "model"] = "auto"
    """How tokens become features; auto: as a classifier in the file does it, else the mean of the patches."""
    architecture: str = ""
    """timm model that a file's weights belong to, where they are no plain Vision Transformer."""
    heads: int = 0
    """Attention heads of the encoder, which no file says; 0: known by the width (768: 12, 1024: 16, ...)."""
    decoder_heads: int = 0
    """Attention heads of the decoder; 0: known by the width (512: 16)."""
    drop: tuple[str, ...] = ()
    """Leave out keys that begin with one of these (further classifiers, ...)."""
    half: bool = False
    """Store the encoder and its decoder in half precision, to ship them."""


@dataclass
class Weights:
    """What is converted.

    Attributes:
        encoder: The encoder.
        decoder: Weights of a masked autoencoder's decoder; empty where there is none.
        settings: What stage 1 must know of the decoder; empty where there is none.
        notes: What the user should know.
    """

    encoder: Encoder
    decoder: Tensors = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def main(config: Convert) -> None:
    """Convert.

    Raises:
        UserError: The source cannot be read, or has keys that are missing, unknown or mis-shaped, which are listed.
    """
    is_file = not Path(config.source).is_dir() and not config.source.startswith("timm:")
    if is_file and not Path(config.source).is_file():
        raise UserError(f"{config.source} does not exist: give a .pth or .safetensors file, a directory or timm:NAME")
    given = [f"--{name.replace('_', '-')}" for name in FILE_OPTIONS if getattr(config, name)]
    if given and not is_file:
        raise UserError(
            f"{', '.join(given)}: for .pth and .safetensors files only, and {config.source} says itself what it is; "
            "leave it out"
        )
    weights = read_file(config) if is_file else read_encoder(config)
    if config.pooling != "auto":
        weights.encoder = rebuild(weights.encoder, config.source, pooling=config.pooling)
    if config.image_size:
        resize(weights, config)
    write_mae(weights, config) if config.to == "mae" else write_encoder(weights, config)
    settings = weights.encoder.config
    size = sum(parameter.numel() for parameter in weights.encoder.parameters()) / 1e6
    for note in weights.notes:
        print(f"note: {note}")
    print(
        f"{config.out}: {settings.architecture}, {size:.1f} M weights, {settings.image_size} px, pooling "
        f"{settings.pooling}, mean {settings.mean}, std {settings.std}, "
        + ("decoder {dim} x {depth}".format(**weights.settings) if weights.settings else "no decoder")
    )


def read_encoder(config: Convert) -> Weights:
    """An encoder directory with the decoder that stands beside it, a published timm folder, or a timm model."""
    from checkpoints.artifact import read_json
    from checkpoints.encoder import DECODER, encoder_directory, load_encoder, load_tensors

    encoder = load_encoder(config.source)
    directory = encoder_directory(config.source)
    settings = {} if config.source.startswith("timm:") else read_json(directory / "config.json").get("decoder", {})
    decoder = load_tensors(directory / DECODER) if settings else {}
    return Weights(encoder, {name: tensor.float() for name, tensor in decoder.items()}, settings)


def read_file(config: Convert) -> Weights:
    """A file of another program."""
    from checkpoints import layouts
    from checkpoints.encoder import Encoder, refuse_misfits, timm_config

    source = Path(config.source)
    known = Encoder(timm_config(config.architecture)) if config.architecture else None
    anchor = layouts.ANCHOR if known is None else next(iter(known.weights()))
    tensors, arguments = layouts.read_file(source, anchor)
    dropped = [name for name in tensors if config.drop and name.startswith(config.drop)]
    parts = layouts.take_apart({name: tensor for name, tensor in tensors.items() if name not in dropped})
    encoder = known or Encoder(layouts.encoder_config(parts, arguments, source, config.heads))
    wanted: dict[str, Sequence[int]] = {name: tensor.shape for name, tensor in encoder.weights().items()}
    settings: dict[str, Any] = {}
    if parts.decoder:
        settings = layouts.decoder_settings(parts, arguments, source, config.decoder_heads)
        wanted |= layouts.decoder_shapes(settings, encoder)
    # Before `load`, which would list the encoder's first few alone.
    refuse_misfits(wanted, parts.backbone | parts.decoder, source=source, most=len(tensors) + len(wanted))
    encoder.load(parts.backbone, source=source)
    encoder.provenance = {
        "stage": "imported",
        "source": source.name,
        "synthetic": False,
        "unlabelled_videos": [],
        "labelled_videos": {},
        "pictures_seen": 0,
    }
    decoder = {name: tensor.float() for name, tensor in parts.decoder.items()}
    weights = Weights(encoder.eval(), decoder, settings)
    weights.notes.append("what these weights were trained on is not known, so no later check for leaks can see it")
    if left := sorted([*dropped, *parts.classifier]):
        weights.notes.append(f"left out: {', '.join(left)}")
    return weights


def resize(weights: Weights, config: Convert) -> None:
    """Resize the position embeddings of encoder and decoder for another size of pictures.

    Raises:
        UserError: The size is no multiple of the patches' side.
    """
    patch = getattr(getattr(weights.encoder.backbone, "patch_embed", None), "patch_size", (1,))[0]
    if config.image_size % patch:
        raise UserError(f"--image-size {config.image_size} is no multiple of the patch size {patch} of {config.source}")
    weights.encoder = rebuild(weights.encoder, config.source, image_size=config.image_size)
    if weights.decoder:
        table = weights.decoder["decoder_pos_embed"]
        weights.decoder["decoder_pos_embed"] = resample(table, config.image_size // patch, 1)


def rebuild(encoder: Encoder, source: str, **changes: Any) -> Encoder:
    """The same weights under a changed configuration; position embeddings are resized to fit."""
    from checkpoints.encoder import Encoder

    changed = Encoder(replace(encoder.config, **changes), provenance=encoder.provenance)
    weights = encoder.weights()
    wanted = changed.weights().get("pos_embed")
    if wanted is not None and wanted.shape != weights["pos_embed"].shape:
        backbone = changed.backbone
        prefix = 0 if getattr(backbone, "no_embed_class", False) else backbone.num_prefix_tokens
        weights["pos_embed"] = resample(weights["pos_embed"], backbone.patch_embed.grid_size[0], prefix)
    changed.load(weights, source=source)
    return changed.eval()


def resample(table: Any, grid: int, prefix: int) -> Any:
    """Position embeddings `[1, prefix + g * g, D]` on another grid (bicubic); those of prefix tokens stay."""
    from timm.layers import resample_abs_pos_embed

    return resample_abs_pos_embed(table, [grid, grid], num_prefix_tokens=prefix, verbose=False)


def write_encoder(weights: Weights, config: Convert) -> None:
    """Write an encoder directory, with the decoder beside the encoder where there is one.

    Raises:
        UserError: There is one already.
    """
    import torch

    from checkpoints.artifact import fingerprint
    from checkpoints.encoder import DECODER, save_encoder, save_tensors

    if (config.out / "config.json").exists():
        raise UserError(f"{config.out} holds an encoder already: give another --out, or delete it")
    if weights.decoder:
        dtype = torch.float16 if config.half else torch.float32
        save_tensors(config.out / DECODER, {name: tensor.to(dtype) for name, tensor in weights.decoder.items()})
    source = Path(config.source)
    fields: dict[str, Any] = {"decoder": weights.settings} if weights.settings else {}
    save_encoder(
        config.out,
        weights.encoder,
        made_by="checkpoints/convert.py",
        recipe={"source": source.name, "image_size": config.image_size, "pooling": config.pooling},
        parents={"source": fingerprint(source)} if source.is_file() else {},
        dtype=torch.float16 if config.half else torch.float32,
        **fields,
    )


def write_mae(weights: Weights, config: Convert) -> None:
    """Write a file with MAE's keys; what its layout has no place for stands in `args`, for the way back.

    Raises:
        UserError: The file is there already, or the encoder has weights that MAE's layout has no name for.
    """
    import torch

    from checkpoints.artifact import atomic_file
    from checkpoints.layouts import IMAGENET_MEAN, IMAGENET_STD, mae_layout

    if config.out.suffix != ".pth":
        raise UserError(f"--out {config.out}: facebookresearch/mae reads .pth files")
    if config.out.exists():
        raise UserError(f"{config.out} exists already: give another --out, or delete it")
    tensors = mae_layout(weights.encoder, config.source) | weights.decoder
    settings = weights.encoder.config
    arguments = {
        "heads": int(weights.encoder.backbone.blocks[0].attn.num_heads),
        "mean": list(settings.mean),
        "std": list(settings.std),
        "pooling": settings.pooling,
    }
    if weights.settings:
        arguments |= {"decoder_heads": weights.settings["num_heads"]}
        arguments |= {name: weights.settings[name] for name in ("mask_ratio", "norm_pix_loss")}
    with atomic_file(config.out) as temporary:
        torch.save({"model": tensors, "args": arguments}, temporary)
    if (settings.mean, settings.std) != (IMAGENET_MEAN, IMAGENET_STD):
        weights.notes.append("MAE's scripts normalise with another mean and std than these weights expect")


def command_line() -> None:
    """Parse the command line and convert."""
    main(tyro.cli(Convert, description=__doc__))


if __name__ == "__main__":
    guarded(command_line)
