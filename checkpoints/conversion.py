"""Reading encoders of any origin, changing their input size or pooling, and writing them in our form or MAE's."""

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed

from checkpoints import layouts
from checkpoints.artifact import atomic_file, fingerprint
from checkpoints.encoder import (
    DECODER,
    encoder_directory,
    is_published,
    load_decoder,
    load_encoder,
    read_encoder_header,
    save_encoder,
    timm_config,
)
from checkpoints.errors import UserError
from checkpoints.network import Encoder
from checkpoints.tensors import refuse_misfits, save_tensors

CARD = "README.md"
STANDARD = (
    *("kind", "schema", "made_by", "config", "parents", "encoder", "provenance", "weights"),
    *("architecture", "num_features", "model_args", "pretrained_cfg"),
)
"""Header fields that every encoder directory has; all others are kept as they are."""


@dataclass
class Weights:
    """An encoder on its way from one form to another.

    Attributes:
        source: What the user called it.
        encoder: The encoder.
        decoder: Weights of the masked autoencoder's decoder; empty if there is none.
        settings: What stage 1 must know about the decoder; empty if there is none.
        copied_from: Our encoder directory that it was read from, as long as input and pooling are unchanged; else None.
        notes: What the user should know.
    """

    source: str
    encoder: Encoder
    decoder: layouts.Tensors = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    copied_from: Path | None = None
    notes: list[str] = field(default_factory=list)


def read_encoder(source: str) -> Weights:
    """Read an encoder directory with its decoder, a timm model's folder, or a timm model by name."""
    encoder = load_encoder(source)
    directory = encoder_directory(source)
    if source.startswith("timm:") or is_published(directory):
        return Weights(source, encoder)
    found = load_decoder(directory)
    settings, decoder = found or ({}, {})
    return Weights(source, encoder, {name: tensor.float() for name, tensor in decoder.items()}, settings, directory)


def read_file(
    path: Path, *, architecture: str = "", heads: int = 0, decoder_heads: int = 0, drop: Collection[str] = ()
) -> Weights:
    """Read a file that another program wrote.

    Args:
        path: `.pth` or `.safetensors`.
        architecture: timm model that the weights belong to; empty for a plain Vision Transformer.
        heads: Attention heads of the encoder; 0: inferred from the width.
        decoder_heads: Attention heads of the decoder; 0: inferred from the width.
        drop: Keys with one of these prefixes are left out.

    Raises:
        UserError: The file cannot be read, or does not fit the architecture; the message lists every bad key.
    """
    known = Encoder(timm_config(architecture)) if architecture else None
    anchor = layouts.ANCHOR if known is None else next(iter(known.weights()))
    tensors, arguments = layouts.read_file(path, anchor)
    dropped = [name for name in tensors if name.startswith(tuple(drop))]
    parts = layouts.take_apart({name: tensor for name, tensor in tensors.items() if name not in dropped})
    encoder = known or Encoder(layouts.encoder_config(parts, arguments, path, heads))
    wanted: dict[str, Sequence[int]] = {name: tensor.shape for name, tensor in encoder.weights().items()}
    settings: dict[str, Any] = {}
    if parts.decoder:
        settings = layouts.decoder_settings(parts, arguments, path, decoder_heads)
        wanted |= layouts.decoder_shapes(settings, encoder)
    # Check everything here: `load` would list only the encoder's first few problems.
    refuse_misfits(wanted, parts.backbone | parts.decoder, source=path, most=len(tensors) + len(wanted))
    encoder.load(parts.backbone, source=path)
    encoder.provenance = {
        "stage": "imported",
        "source": path.name,
        "synthetic": False,
        "unlabelled_videos": [],
        "labelled_videos": {},
        "pictures_seen": 0,
    }
    decoder = {name: tensor.float() for name, tensor in parts.decoder.items()}
    weights = Weights(str(path), encoder.eval(), decoder, settings)
    weights.notes.append("the file does not say what these weights were trained on, so leaks cannot be detected later")
    if left := sorted([*dropped, *parts.classifier]):
        weights.notes.append(f"left out: {', '.join(left)}")
    return weights


def resize(weights: Weights, image_size: int) -> None:
    """Resize the position embeddings of encoder and decoder to another image size.

    Raises:
        UserError: The image size is not a multiple of the patch size.
    """
    patch = getattr(getattr(weights.encoder.backbone, "patch_embed", None), "patch_size", (1,))[0]
    if image_size % patch:
        raise UserError(f"--image-size {image_size} is not a multiple of the patch size {patch} of {weights.source}")
    rebuild(weights, image_size=image_size)
    if weights.decoder:
        table = weights.decoder["decoder_pos_embed"]
        weights.decoder["decoder_pos_embed"] = _resample(table, image_size // patch, 1)


def rebuild(weights: Weights, **changes: Any) -> None:
    """Change the encoder's configuration and keep its weights; position embeddings are resized to fit."""
    encoder = weights.encoder
    changed = Encoder(replace(encoder.config, **changes), provenance=encoder.provenance)
    tensors = encoder.weights()
    wanted = changed.weights().get("pos_embed")
    if wanted is not None and wanted.shape != tensors["pos_embed"].shape:
        backbone = changed.backbone
        prefix = 0 if getattr(backbone, "no_embed_class", False) else backbone.num_prefix_tokens
        tensors["pos_embed"] = _resample(tensors["pos_embed"], backbone.patch_embed.grid_size[0], prefix)
    changed.load(tensors, source=weights.source)
    weights.encoder = changed.eval()
    weights.copied_from = None


def _resample(table: torch.Tensor, grid: int, prefix: int) -> torch.Tensor:
    """Resize position embeddings `[1, prefix + g * g, D]` to another grid (bicubic); prefix tokens keep theirs."""
    return resample_abs_pos_embed(table, [grid, grid], num_prefix_tokens=prefix, verbose=False)


def write_encoder(out: Path, weights: Weights, *, recipe: dict[str, Any], half: bool) -> None:
    """Write an encoder directory, with the decoder beside the encoder if there is one.

    A plain copy of a directory of ours, in whatever precision, keeps its recipe, parents, other header fields and card.
    Any other encoder records `recipe`, the options of the conversion. `half` stores the weights in half precision.

    Raises:
        UserError: There is an encoder already.
    """
    if (out / "config.json").exists():
        raise UserError(f"{out} already holds an encoder: choose another --out, or delete it")
    dtype = torch.float16 if half else torch.float32
    if weights.decoder:
        save_tensors(out / DECODER, {name: tensor.to(dtype) for name, tensor in weights.decoder.items()})
    made_by = "checkpoints/convert.py"
    source = Path(weights.source)
    parents = {"source": fingerprint(source)} if source.is_file() else {}
    fields: dict[str, Any] = {}
    copied_from = weights.copied_from
    if copied_from is not None:
        header = read_encoder_header(copied_from)
        made_by, recipe, parents = header["made_by"].rpartition(" ")[2], header["config"], header["parents"]
        fields = {name: value for name, value in header.items() if name not in STANDARD}
    if weights.decoder:
        fields["decoder"] = weights.settings | {"weights": fingerprint(out / DECODER)}
    save_encoder(out, weights.encoder, made_by=made_by, recipe=recipe, parents=parents, dtype=dtype, **fields)
    if copied_from is not None and (copied_from / CARD).exists():
        shutil.copyfile(copied_from / CARD, out / CARD)


def write_mae(out: Path, weights: Weights) -> None:
    """Write a file with MAE's keys; settings that its layout cannot express go to `args`, for the way back.

    Raises:
        UserError: The file exists, or the encoder has weights that MAE's layout has no name for.
    """
    if out.suffix != ".pth":
        raise UserError(f"--out {out}: facebookresearch/mae reads .pth files")
    if out.exists():
        raise UserError(f"{out} already exists: choose another --out, or delete it")
    tensors = layouts.mae_layout(weights.encoder, weights.source) | weights.decoder
    config = weights.encoder.config
    arguments = {
        "heads": int(weights.encoder.backbone.blocks[0].attn.num_heads),
        "mean": list(config.mean),
        "std": list(config.std),
        "pooling": config.pooling,
    }
    if weights.settings:
        arguments |= {"decoder_heads": weights.settings["num_heads"]}
        arguments |= {name: weights.settings[name] for name in ("mask_ratio", "norm_pix_loss")}
    buffer = BytesIO()  # torch's own writer does not say that a disk is full
    torch.save({"model": tensors, "args": arguments}, buffer)
    with atomic_file(out) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    if (config.mean, config.std) != (layouts.IMAGENET_MEAN, layouts.IMAGENET_STD):
        weights.notes.append("MAE's scripts normalise with another mean and std than these weights expect")
