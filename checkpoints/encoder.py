"""The encoder artifact: a timm image model, its input and pooling, and how it was trained.

An encoder directory holds `model.safetensors` and `config.json`. One loader reads our stage 1 and stage 2 products,
imported weights, timm models by name (`timm:vit_base_patch16_224.augreg_in21k`) and folders that timm's models are
published in (`config.json` and `model.safetensors`, as the Hugging Face hub has them).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from checkpoints.artifact import atomic_file, fingerprint, read_header, read_json, write_header
from checkpoints.errors import UserError

KIND = "encoder"
SCHEMA = 1
SQUEEZE = "squeeze."
DECODER = "decoder.safetensors"
"""Where the decoder of a masked autoencoder stands beside its encoder; only stage 1 reads it."""
POOLINGS = ("cls", "mean", "cls_mean", "grid", "model")


@dataclass(frozen=True)
class EncoderConfig:
    """What an encoder is and what it expects.

    Attributes:
        architecture: Name of a timm model.
        image_size: Side of the square input in pixels.
        kwargs: Further arguments of `timm.create_model` (`patch_size`, `embed_dim`, `depth`, ...).
        mean: Subtracted per channel from images scaled to [0, 1].
        std: Divided by per channel.
        pooling: How tokens become one vector: `cls`, `mean` (patch tokens), `cls_mean` (both, concatenated), `grid`
            (each patch token squeezed to `grid_channels` by one linear layer, then laid side by side: in an aligned
            face a place says which part of the face it is) or `model` (whatever the timm model itself does before its
            classifier; the only choice for networks without tokens).
        grid_channels: Channels that `grid` keeps of each patch token.
    """

    architecture: str
    image_size: int
    kwargs: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pooling: str = "mean"
    grid_channels: int = 32

    def __post_init__(self) -> None:
        """Check the values that come from files and command lines."""
        if self.pooling not in POOLINGS:
            raise UserError(f"pooling {self.pooling!r} is not one of {', '.join(POOLINGS)}")


class Encoder(nn.Module):
    """A timm backbone with the normalisation before it and the pooling behind it.

    Args:
        config: What to build.
        provenance: How and on what the weights were trained, as written by the stage that trained them
            (`stage`, `recipe`, `synthetic`, `unlabelled_videos`, `labelled_videos`, `label_task`).
        pretrained: Let timm fetch its published weights for the architecture.
    """

    mean: torch.Tensor
    std: torch.Tensor
    backbone: Any  # a timm model; their attributes differ

    def __init__(
        self, config: EncoderConfig, *, provenance: dict[str, Any] | None = None, pretrained: bool = False
    ) -> None:
        super().__init__()
        import timm

        self.config = config
        self.provenance = provenance or {}
        self.fingerprint = ""
        arguments = {**config.kwargs, "img_size": config.image_size}
        create = partial(timm.create_model, config.architecture, pretrained=pretrained, num_classes=0)
        try:
            try:
                self.backbone = create(**arguments)
            except TypeError as error:
                if "img_size" not in str(error):
                    raise
                arguments.pop("img_size")  # a convolutional network takes pictures of any size
                self.backbone = create(**arguments)
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:
            raise UserError(f"timm cannot build {config.architecture!r} with {arguments}: {error}") from None
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
            return int(self.backbone.head_hidden_size)  # wider than the last stage in MobileNets and their like
        return int(self.backbone.num_features) * (2 if self.config.pooling == "cls_mean" else 1)

    def weights(self) -> dict[str, torch.Tensor]:
        """What is stored: the backbone's weights under timm's names, and those of the pooling where it has any."""
        pooling = {} if self.squeeze is None else self.squeeze.state_dict()
        return self.backbone.state_dict() | {f"{SQUEEZE}{name}": tensor for name, tensor in pooling.items()}

    def load(self, weights: dict[str, torch.Tensor], *, source: object) -> None:
        """Load what :meth:`weights` gave.

        Raises:
            UserError: Lists every missing, unknown and mis-shaped key.
        """
        pooling = {name.removeprefix(SQUEEZE): w for name, w in weights.items() if name.startswith(SQUEEZE)}
        if self.squeeze is not None:
            load_weights(self.squeeze, pooling, source=source)
        backbone = {name: tensor for name, tensor in weights.items() if not name.startswith(SQUEEZE)}
        load_weights(self.backbone, backbone, source=source)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Turn uint8 images `[B, 3, H, W]` into what the backbone expects."""
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std

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
        directory: Where to; made if missing.
        encoder: What to write.
        made_by: The command that made it.
        recipe: Resolved configuration of that command.
        parents: Fingerprints of what it was trained from.
        dtype: Precision of the stored weights.
        fields: Further header fields, e.g. validation scores.
    """
    weights = Path(directory) / "model.safetensors"
    save_tensors(weights, {name: tensor.to(dtype) for name, tensor in encoder.weights().items()})
    write_header(
        directory,
        "config.json",
        kind=KIND,
        schema=SCHEMA,
        made_by=made_by,
        config=recipe,
        parents=parents,
        encoder=asdict(encoder.config),
        provenance=encoder.provenance,
        weights=fingerprint(weights),
        **fields,
    )


def save_untrained(directory: Path, like: str | Path, *, made_by: str) -> None:
    """Write an encoder of the same form as another with fresh weights, unless it is there: a start to compare with."""
    if not (directory / "config.json").exists():
        parent = load_encoder(like)
        torch.manual_seed(0)
        provenance = {"stage": "none", "synthetic": bool(parent.provenance.get("synthetic"))}
        save_encoder(directory, Encoder(parent.config, provenance=provenance), made_by=made_by, recipe={}, parents={})


def load_encoder(where: str | Path) -> Encoder:
    """Load an encoder directory (`ENC`, `RUN` or `RUN/encoder`) or a timm model (`timm:NAME`, or its folder).

    `encoder.fingerprint` identifies the weights together with everything that shapes the features.

    Raises:
        UserError: Nothing there, another schema, or weights that do not fit the architecture.
    """
    if str(where).startswith("timm:"):
        return _load_timm(str(where).removeprefix("timm:"))
    directory = encoder_directory(where)
    if (directory / "config.json").is_file() and "pretrained_cfg" in (found := read_json(directory / "config.json")):
        return _load_timm_folder(directory, found)
    header = read_header(directory, "config.json", kind=KIND, schema=SCHEMA)
    stored = header["encoder"]
    config = EncoderConfig(**{**stored, "mean": tuple(stored["mean"]), "std": tuple(stored["std"])})
    encoder = Encoder(config, provenance=header["provenance"])
    encoder.load(load_tensors(directory / "model.safetensors"), source=directory)
    encoder.fingerprint = encoder_fingerprint(header["weights"], config)
    return encoder.eval()


def encoder_directory(where: str | Path) -> Path:
    """Find the encoder that a path on the command line means: the directory itself or the `encoder` inside a run.

    Raises:
        UserError: It is a run that has not come to its end.
    """
    directory = Path(where)
    if (directory / "encoder").is_dir():
        return directory / "encoder"
    header = directory / "config.json"
    if header.is_file() and read_json(header).get("kind") == "run":
        raise UserError(f"{directory} is a run that is not finished: start it again by the same command, it goes on")
    return directory


def encoder_fingerprint(weights: str, config: EncoderConfig) -> str:
    """Identify features: the weights' fingerprint with the architecture, input and pooling."""
    import hashlib
    import json

    return hashlib.sha256(f"{weights}{json.dumps(asdict(config), sort_keys=True)}".encode()).hexdigest()


def load_weights(module: nn.Module, tensors: dict[str, torch.Tensor], *, source: object) -> None:
    """Load a state dict strictly.

    Raises:
        UserError: Lists every missing, unknown and mis-shaped key.
    """
    refuse_misfits({name: tensor.shape for name, tensor in module.state_dict().items()}, tensors, source=source)
    module.load_state_dict(tensors)


def refuse_misfits(
    wanted: Mapping[str, Sequence[int]], tensors: Mapping[str, torch.Tensor], *, source: object, most: int = 6
) -> None:
    """Compare names and shapes with what is wanted.

    Args:
        wanted: Name -> shape.
        tensors: What there is.
        source: Where it is, for the message.
        most: How many faults are listed.

    Raises:
        UserError: Lists the missing, unknown and mis-shaped keys.
    """
    problems = [f"missing {key}" for key in wanted if key not in tensors]
    problems += [f"unknown {key}" for key in tensors if key not in wanted]
    problems += [
        f"{key} is {list(tensors[key].shape)}, expected {list(shape)}"
        for key, shape in wanted.items()
        if key in tensors and tuple(tensors[key].shape) != tuple(shape)
    ]
    if problems:
        raise UserError(f"the weights in {source} do not fit: {_first(problems, most)}")


def save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write tensors to one safetensors file, atomically."""
    from safetensors.torch import save_file

    with atomic_file(path) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises:
        UserError: The file is missing, truncated or not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def timm_config(name: str) -> EncoderConfig:
    """What timm says of one of its models.

    Raises:
        UserError: It has no such model.
    """
    import timm

    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('.', maxsplit=1)[0][:12]}*")
        raise UserError(f"timm has no model {name!r}; near names: {', '.join(near[:5]) or 'none'}")
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
    import hashlib

    config = timm_config(name)
    try:
        encoder = Encoder(config, provenance={"stage": "timm", "recipe": name}, pretrained=True)
    except Exception as error:  # hub errors are many and belong to the network
        raise UserError(
            f"the published weights of {name} could not be had ({type(error).__name__}: {error}); "
            "download its folder (config.json, model.safetensors) where there is a network and give that as --encoder, "
            "or convert a local file with checkpoints/convert.py"
        ) from None
    digest = hashlib.sha256()
    for key, tensor in sorted(encoder.backbone.state_dict().items()):
        digest.update(key.encode() + tensor.float().numpy().tobytes())
    encoder.fingerprint = encoder_fingerprint(digest.hexdigest(), config)
    return encoder.eval()


def _load_timm_folder(directory: Path, published: dict[str, Any]) -> Encoder:
    """Load the folder in which a timm model is published; a classifier in it is left out."""
    settings = published["pretrained_cfg"]
    config = EncoderConfig(
        architecture=published["architecture"],
        image_size=settings["input_size"][-1],
        kwargs=published.get("model_args") or {},
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        pooling="model",
    )
    encoder = Encoder(config, provenance={"stage": "timm", "recipe": config.architecture})
    tensors = load_tensors(directory / "model.safetensors")
    classifiers = settings.get("classifier") or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
    dropped = tuple(f"{name}." for name in classifiers)
    encoder.load({name: t for name, t in tensors.items() if not name.startswith(dropped)}, source=directory)
    encoder.fingerprint = encoder_fingerprint(fingerprint(directory / "model.safetensors"), config)
    return encoder.eval()


def _first(problems: Sequence[str], most: int) -> str:
    rest = len(problems) - most
    return "; ".join(problems[:most]) + (f"; and {rest} more" if rest > 0 else "")
