"""The encoder artifact: the weights of a network, its input and pooling, and how it was trained.

An encoder directory holds `model.safetensors` and `config.json`. One loader reads the encoders of stages 1 and 2,
imported weights, timm models by name (`timm:vit_base_patch16_224.augreg_in21k`) and the folders in which timm models
are published (`config.json` and `model.safetensors`, as on the Hugging Face hub).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from operator import mul
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import timm
import torch
from torch import nn

from checkpoints.artifact import Header, fingerprint, read_header, read_json, write_header
from checkpoints.errors import UserError
from checkpoints.forms import Ids, Size, checked
from checkpoints.network import LUMA, SQUEEZE, Encoder, EncoderConfig
from checkpoints.tensors import checked_weights, load_tensors, save_tensors

KIND = "encoder"
SCHEMA = 1
HEADER = "config.json"
WEIGHTS = "model.safetensors"
DECODER = "decoder.safetensors"
"""File beside an encoder that holds the decoder of its masked autoencoder; only stage 1 reads it."""


class Provenance(TypedDict, total=False):
    """How and on what an encoder was trained."""

    stage: str
    recipe: str
    synthetic: bool
    unlabelled_videos: list[str]
    labelled_videos: Ids
    chosen_on: Ids
    synthetic_labels: list[str]
    validation_videos: list[str]
    pictures_seen: int


class Decoder(TypedDict):
    """The decoder beside an encoder of stage 1."""

    dim: Size
    depth: Size
    num_heads: Size
    mask_ratio: float
    norm_pix_loss: bool
    weights: str


class EncoderHeader(Header):
    """Header of an encoder."""

    encoder: Annotated[dict[str, Any], EncoderConfig]
    provenance: Provenance
    weights: str
    decoder: NotRequired[Decoder]
    classifier: NotRequired[str]


class PublishedSettings(TypedDict):
    """Input of a model that timm publishes."""

    input_size: tuple[Size, Size, Size]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classifier: NotRequired[str | list[str] | None]


class Published(TypedDict):
    """`config.json` of a model that timm publishes."""

    architecture: str
    pretrained_cfg: PublishedSettings
    model_args: NotRequired[dict[str, Any] | None]


def save_encoder(
    directory: Path,
    encoder: Encoder,
    *,
    made_by: str,
    recipe: dict[str, Any],
    parents: dict[str, str],
    dtype: torch.dtype = torch.float32,
    **fields: Any,
) -> None:
    """Write an encoder directory: weights first, `config.json` last.

    Args:
        directory: The directory; created if missing.
        encoder: The encoder.
        made_by: The command that made it.
        recipe: Resolved configuration of that command.
        parents: Fingerprints of the artifacts it was made from.
        dtype: Precision of the stored weights.
        fields: Further header fields, e.g. validation scores.
    """
    weights = Path(directory) / WEIGHTS
    save_tensors(weights, {name: tensor.to(dtype) for name, tensor in encoder.weights().items()})
    write_header(
        directory,
        HEADER,
        kind=KIND,
        schema=SCHEMA,
        made_by=made_by,
        config=recipe,
        parents=parents,
        encoder=asdict(encoder.config),
        provenance=encoder.provenance,
        weights=fingerprint(weights),
        **timm_keys(encoder),
        **fields,
    )


def timm_keys(encoder: Encoder) -> dict[str, Any]:
    """What timm reads in a `config.json`, so that `timm.create_model("local-dir:DIR", pretrained=True)` loads it.

    The model takes pictures in [0, 1], normalised by `mean` and `std` (grey ones if its input has one channel), and
    returns the encoder's features, except with the poolings `cls_mean` and `grid`, which timm does not have.
    """
    config, backbone = encoder.config, encoder.backbone
    mean, std = (
        (sum(map(mul, LUMA, values)),) if encoder.grey else tuple(values) for values in (config.mean, config.std)
    )
    model = {**encoder.arguments, "num_classes": 0}
    if config.pooling == "mean" and isinstance(getattr(backbone, "norm", None), nn.LayerNorm):
        model |= {"global_pool": "avg", "fc_norm": False}
    elif config.pooling == "cls":
        model |= {"global_pool": "token"}
    published: dict[str, Any] = {
        "input_size": [len(mean), config.image_size, config.image_size],
        "mean": mean,
        "std": std,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "num_classes": config.grid_channels if encoder.squeeze else 0,
    }
    if encoder.squeeze:  # timm leaves out the weights of a classifier that the model does not have
        published["classifier"] = SQUEEZE.rstrip(".")
    return {
        "architecture": config.architecture,
        "num_features": int(backbone.num_features),
        "model_args": model,
        "pretrained_cfg": published,
    }


def load_encoder(where: str | Path) -> Encoder:
    """Load an encoder directory (`ENC`, `RUN` or `RUN/encoder`) or a timm model (`timm:NAME`, or its folder).

    `encoder.fingerprint` identifies the weights together with everything that shapes the features.

    Raises:
        UserError: There is no encoder, its schema is unknown, or the weights do not fit the architecture.
    """
    if str(where).startswith("timm:"):
        return _load_timm(str(where).removeprefix("timm:"))
    directory = encoder_directory(where)
    if is_published(directory):
        return _load_timm_folder(directory)
    header = read_encoder_header(directory)
    stored = header["encoder"]
    config = EncoderConfig(**{**stored, "mean": tuple(stored["mean"]), "std": tuple(stored["std"])})
    encoder = Encoder(config, provenance=dict(header["provenance"]))
    encoder.load(load_tensors(directory / WEIGHTS), source=directory)
    found = checked_weights(directory / WEIGHTS, header["weights"], directory / HEADER)
    encoder.fingerprint = encoder_fingerprint(found, config)
    return encoder.eval()


def chosen_on(provenance: Mapping[str, Any]) -> dict[str, list[str]]:
    """Task -> ids whose labels chose which state of an encoder, or of a parent of it, was kept."""
    before = provenance.get("validation_videos")  # as stage 2 once called them
    return provenance.get("chosen_on") or ({"expr": before} if before else {})


def read_encoder_header(directory: Path) -> EncoderHeader:
    """Header of an encoder directory.

    Raises:
        UserError: It holds none.
    """
    return read_header(directory, HEADER, kind=KIND, schema=SCHEMA, form=EncoderHeader)


def is_published(directory: Path) -> bool:
    """Whether a folder is one in which a timm model is published."""
    header = directory / HEADER
    content = read_json(header) if header.is_file() else None
    return isinstance(content, dict) and "pretrained_cfg" in content and "kind" not in content  # ours names both


def load_decoder(directory: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
    """Settings and weights of the decoder beside an encoder; None if it is not of stage 1.

    Raises:
        UserError: The weights are missing or were changed.
    """
    settings = read_encoder_header(directory).get("decoder")
    if settings is None:
        return None
    tensors = load_tensors(directory / DECODER)
    checked_weights(directory / DECODER, settings["weights"], directory / HEADER)
    return {name: value for name, value in settings.items() if name != "weights"}, tensors


def encoder_directory(where: str | Path) -> Path:
    """Resolve a path from the command line: either an encoder directory or a run that contains `encoder/`.

    Raises:
        UserError: It is a run that is not finished.
    """
    directory = Path(where)
    if (directory / "encoder").is_dir():
        return directory / "encoder"
    header = directory / HEADER
    found = read_json(header) if header.is_file() else None
    if isinstance(found, dict) and found.get("kind") == "run":
        raise UserError(f"{directory} is a run that is not finished: run the same command again to resume it")
    return directory


def encoder_fingerprint(weights: str, config: EncoderConfig) -> str:
    """Hash of what determines the features: the weights' fingerprint, architecture, input and pooling."""
    return hashlib.sha256(f"{weights}{json.dumps(asdict(config), sort_keys=True)}".encode()).hexdigest()


def timm_config(name: str) -> EncoderConfig:
    """The configuration that timm publishes for one of its models.

    Raises:
        UserError: timm has no such model.
    """
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('.', maxsplit=1)[0][:12]}*")
        raise UserError(f"timm has no model {name!r}; similar names: {', '.join(near[:5]) or 'none'}")
    try:
        settings: Any = timm.get_pretrained_cfg(name)
    except RuntimeError:
        near = timm.list_models(f"{name.split('.', maxsplit=1)[0]}.*", pretrained=True)
        raise UserError(f"timm has no weights {name!r}; it has {', '.join(near) or 'none'}") from None
    return EncoderConfig(
        architecture=name,
        image_size=settings.input_size[-1],
        mean=tuple(settings.mean),
        std=tuple(settings.std),
        pooling="model",
    )


def _load_timm(name: str) -> Encoder:
    config = timm_config(name)
    try:
        encoder = Encoder(config, provenance={"stage": "timm", "recipe": name}, pretrained=True)
    except Exception as error:  # the hub raises many kinds of errors, most of them about the network
        raise UserError(
            f"the published weights of {name} could not be downloaded ({type(error).__name__}: {error}); "
            "on a machine with network access download the model's folder (config.json, model.safetensors) and pass "
            "it as --encoder, or convert a local file with checkpoints/convert.py"
        ) from None
    digest = hashlib.sha256()
    for key, tensor in sorted(encoder.backbone.state_dict().items()):
        digest.update(key.encode() + tensor.float().numpy().tobytes())
    encoder.fingerprint = encoder_fingerprint(digest.hexdigest(), config)
    return encoder.eval()


def _load_timm_folder(directory: Path) -> Encoder:
    """Load the folder in which a timm model is published, without its classifier."""
    published = checked(read_json(directory / HEADER), Published, directory / HEADER)
    settings = published["pretrained_cfg"]
    mean, std = settings["mean"], settings["std"]
    config = EncoderConfig(
        architecture=published["architecture"],
        image_size=settings["input_size"][-1],
        kwargs=published.get("model_args") or {},
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        pooling="model",
    )
    encoder = Encoder(config, provenance={"stage": "timm", "recipe": config.architecture})
    tensors = load_tensors(directory / WEIGHTS)
    named = settings.get("classifier") or ()
    dropped = tuple(f"{name}." for name in ((named,) if isinstance(named, str) else named))
    encoder.load({name: t for name, t in tensors.items() if not name.startswith(dropped)}, source=directory)
    encoder.fingerprint = encoder_fingerprint(fingerprint(directory / WEIGHTS), config)
    return encoder.eval()
