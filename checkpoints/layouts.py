"""Weights of other programs: reads their files without executing code, and maps their key layout to ours.

The layout of facebookresearch/mae (He et al. 2021) is also that of MAE-Face, FMAE and timm's Vision Transformers:
`cls_token`, `pos_embed`, `patch_embed.proj`, `blocks.N.{norm1,attn.qkv,attn.proj,norm2,mlp.fc1,mlp.fc2}`, `norm`; with
the decoder also `mask_token`, `decoder_embed`, `decoder_pos_embed`, `decoder_blocks.N.*`, `decoder_norm`,
`decoder_pred`; after fine-tuning `head` and, with average pooling, `fc_norm` instead of `norm`. Files differ in how the
state dict is wrapped (`{"model": ...}`) and in the prefix of its names (`module.`).
"""

import argparse
import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch

from checkpoints.errors import UserError
from checkpoints.forms import Size, checked
from checkpoints.network import Encoder, EncoderConfig
from checkpoints.tensors import load_tensors

Tensors = dict[str, torch.Tensor]

ANCHOR = "patch_embed.proj.weight"  # in every file of this layout: shows where the state dict is, and its prefix
DECODER_KEYS = ("decoder_", "mask_token")
CLASSIFIER_KEYS = ("head.", "head_dist.")
# Files do not record the number of attention heads. These are the published sizes, by width.
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
DECODER_HEADS = {512: 16}
ARCHITECTURES = {
    192: "vit_tiny_patch16_224",
    384: "vit_small_patch16_224",
    768: "vit_base_patch16_224",
    1024: "vit_large_patch16_224",
    1280: "vit_huge_patch14_224",
}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_ASK = "Download it again, or ask its author for a .safetensors file or a plain state dict"
_LAYOUT = re.compile(
    r"cls_token|pos_embed|(patch_embed\.proj|norm|fc_norm|"
    r"blocks\.\d+\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2))\.(weight|bias)"
)


@dataclass
class Layout:
    """The parts of a state dict.

    Attributes:
        backbone: The encoder's tensors under timm's names.
        decoder: The decoder's tensors under MAE's names, which we use too; empty if there is none.
        classifier: Names of the classifier's tensors, which are not used.
    """

    backbone: Tensors
    decoder: Tensors
    classifier: list[str]


class Arguments(TypedDict, total=False):
    """Arguments of a training that a file may hold."""

    heads: Size
    decoder_heads: Size
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pooling: str
    mask_ratio: float
    norm_pix_loss: bool


def read_file(path: Path, anchor: str = ANCHOR) -> tuple[Tensors, dict[str, Any]]:
    """Read a state dict from a `.safetensors` file or a file written by `torch.save`.

    Args:
        path: The file.
        anchor: A key that must be in the state dict, by which it is found inside its wrapping.

    Returns:
        The tensors, with the common prefix of their names removed, and the training's arguments (`args`) if the file
        has them.

    Raises:
        UserError: The file is damaged, holds anything but tensors and plain values, or has another layout.
    """
    content: Any = load_tensors(path) if path.suffix == ".safetensors" else _torch_load(path)
    found = _unwrap(content, anchor)
    if found is None:
        keys = ", ".join(map(str, list(content)[:6])) if isinstance(content, Mapping) else type(content).__name__
        raise UserError(f"{path} holds no weights in the expected layout: no key ends in {anchor} (it holds {keys})")
    prefix = next(key for key in found if key.endswith(anchor)).removesuffix(anchor)
    named = {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    tensors = {key.removeprefix(prefix): value for key, value in named.items()}
    arguments = content.get("args")
    if isinstance(arguments, argparse.Namespace):
        arguments = vars(arguments)
    return tensors, _known(arguments) if isinstance(arguments, Mapping) else {}


def _known(arguments: Mapping[Any, Any]) -> dict[str, Any]:
    """The arguments that mean what ours mean; other trainers use some of these names for other things."""
    found: dict[str, Any] = {}
    for name in arguments.keys() & Arguments.__annotations__.keys():
        value = arguments[name]
        with suppress(UserError):
            found |= checked({name: list(value) if isinstance(value, tuple) else value}, Arguments, name)
    return found


def _torch_load(path: Path) -> Any:
    """Load only tensors and plain values, including the arguments that MAE's scripts save."""
    if not path.stat().st_size:
        raise UserError(f"{path} is empty: download it again")
    try:
        if zipfile.is_zipfile(path):  # torch itself does not look at the checksums
            with zipfile.ZipFile(path) as archive:
                if bad := archive.testzip():
                    raise UserError(f"{path} is damaged: {bad} in it is not what its checksum says. {_ASK}")
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        # Take only the name from torch's message; the rest explains how to load the file anyway and run its code.
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise UserError(
            f"{path} was not read: it is damaged, or it contains code that reading would execute"
            f"{f' ({name[1]})' if name else ''}. {_ASK}"
        ) from None
    except Exception as error:  # damaged bytes can raise anything: IndexError, TypeError, AttributeError, ...
        reason = str(error).partition(". ")[0].partition("\n")[0].strip()  # the rest is advice, as above
        raise UserError(f"{path} cannot be read as a PyTorch file ({reason or type(error).__name__}). {_ASK}") from None


def _unwrap(content: Any, anchor: str) -> Mapping[str, Any] | None:
    """Find the mapping with the anchor, at any depth; `model` and `state_dict` take precedence (over averages)."""
    if not isinstance(content, Mapping):
        return None
    if any(isinstance(key, str) and key.endswith(anchor) for key in content):
        return content
    inner = sorted(content, key=lambda key: key not in ("model", "state_dict"))  # a stable sort
    return next((found for key in inner if (found := _unwrap(content[key], anchor)) is not None), None)


def take_apart(tensors: Tensors) -> Layout:
    """Split the tensors into encoder, decoder and classifier."""
    has_decoder = any(key.startswith("decoder_") for key in tensors)  # a mask token alone does not prove a decoder
    decoder = {key: value for key, value in tensors.items() if has_decoder and key.startswith(DECODER_KEYS)}
    classifier = [key for key in tensors if key.startswith(CLASSIFIER_KEYS)]
    rest = {key: value for key, value in tensors.items() if key not in decoder and key not in classifier}
    return Layout(rest, decoder, classifier)


def encoder_config(layout: Layout, arguments: Mapping[str, Any], source: object, heads: int) -> EncoderConfig:
    """Infer the Vision Transformer that the weights belong to from their shapes.

    Args:
        layout: The weights.
        arguments: The training's arguments, if the file has them; ours record more settings than MAE's.
        source: Where the weights come from, for messages.
        heads: Attention heads; 0: taken from the arguments or inferred from the width.

    Raises:
        UserError: The shapes do not tell.
    """
    backbone = layout.backbone
    width, channels, patch_size, _ = (*backbone[ANCHOR].shape, 0, 0, 0)[:4]
    if backbone[ANCHOR].ndim != 4 or channels != 3 or not width:
        raise UserError(f"{source}: {ANCHOR} is {list(backbone[ANCHOR].shape)}, expected [width, 3, patch, patch]")
    for key in ("pos_embed", "cls_token"):
        if key not in backbone:
            raise UserError(f"{source} has no {key}: name its timm model with --architecture")
    blocks = {key.split(".")[1] for key in backbone if key.startswith("blocks.")}
    kwargs: dict[str, Any] = {
        "patch_size": patch_size,
        "embed_dim": width,
        "depth": len(blocks),
        "num_heads": heads or arguments.get("heads") or known_heads(HEADS, width, source, "--heads"),
        "global_pool": "avg" if "fc_norm.weight" in backbone else "token",
    }
    bias = backbone.get("blocks.0.mlp.fc1.bias")
    hidden = 4 * width if bias is None or not bias.numel() else bias.numel()
    if hidden != 4 * width:
        kwargs["mlp_ratio"] = hidden / width
    # The best guess for a classifier's features is its own pooling; a masked autoencoder has none.
    pooling = "model" if "fc_norm.weight" in backbone or layout.classifier else "mean"
    return EncoderConfig(
        architecture=ARCHITECTURES.get(width, "vit_base_patch16_224"),
        image_size=grid_of(backbone["pos_embed"], source) * patch_size,
        kwargs=kwargs,
        mean=tuple(arguments.get("mean") or IMAGENET_MEAN),
        std=tuple(arguments.get("std") or IMAGENET_STD),
        pooling=arguments.get("pooling") or pooling,
    )


def decoder_settings(layout: Layout, arguments: Mapping[str, Any], source: object, heads: int) -> dict[str, Any]:
    """What stage 1 must know about a decoder; see `pretrain.mae.DecoderConfig`.

    Unless the file's arguments say otherwise, assumes 75 % masking and `norm_pix_loss`, as in the released decoders.
    """
    tables = (layout.decoder.get(key) for key in ("mask_token", "decoder_pos_embed"))  # either may be missing
    width = next((table.shape[-1] for table in tables if table is not None and table.ndim), 0)
    return {
        "dim": width,
        "depth": len({key.split(".")[1] for key in layout.decoder if key.startswith("decoder_blocks.")}),
        "num_heads": heads
        or arguments.get("decoder_heads")
        or known_heads(DECODER_HEADS, width, source, "--decoder-heads"),
        "mask_ratio": arguments.get("mask_ratio", 0.75),
        "norm_pix_loss": arguments.get("norm_pix_loss", True),
    }


def decoder_shapes(settings: Mapping[str, Any], encoder: Encoder) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a decoder, by name."""
    patches = encoder.backbone.patch_embed
    dim, width, patch = settings["dim"], encoder.backbone.embed_dim, patches.patch_size[0]

    def linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    def norm(name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}

    shapes: dict[str, tuple[int, ...]] = {
        "mask_token": (1, 1, dim),
        "decoder_pos_embed": (1, patches.num_patches + 1, dim),
        **linear("decoder_embed", width, dim),
        **norm("decoder_norm"),
        **linear("decoder_pred", dim, patch * patch * 3),
    }
    for number in range(settings["depth"]):
        block = f"decoder_blocks.{number}"
        shapes |= norm(f"{block}.norm1") | norm(f"{block}.norm2")
        shapes |= linear(f"{block}.attn.qkv", dim, 3 * dim) | linear(f"{block}.attn.proj", dim, dim)
        shapes |= linear(f"{block}.mlp.fc1", dim, 4 * dim) | linear(f"{block}.mlp.fc2", 4 * dim, dim)
    return shapes


def grid_of(table: torch.Tensor, source: object) -> int:
    """Patches per side `g` of position embeddings `[1, 1 + g * g, D]`."""
    count = table.shape[1] - 1 if table.ndim == 3 else -1
    if count < 1 or math.isqrt(count) ** 2 != count:
        raise UserError(
            f"{source}: pos_embed is {list(table.shape)}, expected [1, 1 + a square number, width]: this is not a "
            "plain Vision Transformer; name its timm model with --architecture"
        )
    return math.isqrt(count)


def known_heads(table: Mapping[int, int], width: int, source: object, option: str) -> int:
    """Number of attention heads of a published model of this width.

    Raises:
        UserError: No published model has this width.
    """
    if width not in table:
        raise UserError(
            f"{source}: no published model is {width} wide (they are {', '.join(map(str, table))}), and the file does "
            f"not record the number of attention heads: pass {option}"
        )
    return table[width]


def mae_layout(encoder: Encoder, source: object) -> Tensors:
    """An encoder's weights in MAE's layout.

    Raises:
        UserError: It has weights that the layout has no name for.
    """
    tensors: Tensors = encoder.weights()
    missing = [key for key in ("cls_token", "pos_embed", ANCHOR) if key not in tensors]
    unknown = [key for key in tensors if not _LAYOUT.fullmatch(key)]
    if missing or unknown:
        what = [f"no {key}" for key in missing] + [f"{key}, which is not in MAE's layout" for key in unknown]
        raise UserError(f"{source} is not a plain Vision Transformer: it has {'; '.join(what[:6])}")
    return tensors
