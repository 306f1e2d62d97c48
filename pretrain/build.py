"""The network of stage 1: builds it, loads it, and writes it as an encoder directory with its decoder."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch

from checkpoints.artifact import fingerprint
from checkpoints.encoder import (
    DECODER,
    WEIGHTS,
    chosen_on,
    encoder_directory,
    load_decoder,
    load_encoder,
    read_encoder_header,
    save_encoder,
)
from checkpoints.errors import UserError
from checkpoints.network import Encoder, EncoderConfig
from checkpoints.tensors import load_weights, refuse_misfits, save_tensors
from pretrain.mae import DecoderConfig, MaskedAutoencoder
from pretrain.mixture import Faces
from pretrain.recipes import Pretrain
from wildaffect.report.card import write_product_card
from wildaffect.tasks.leaks import together
from wildaffect.training.rundir import RunDirectory, read_run_header
from wildaffect.training.schedule import weight_groups


def build(config: Pretrain) -> MaskedAutoencoder:
    """Build the network that a recipe describes, with fresh weights or those of `config.init`.

    Raises:
        UserError: The sizes do not fit together, or the weights do not fit the network.
    """
    check_sizes(config)
    encoder = Encoder(
        EncoderConfig(
            architecture=config.architecture,
            image_size=config.image_size,
            kwargs={
                "patch_size": config.patch_size,
                "embed_dim": config.embed_dim,
                "depth": config.depth,
                "num_heads": config.num_heads,
                "global_pool": "token",
            },
            mean=config.mean,
            std=config.std,
            pooling="mean",
        )
    )
    decoder = DecoderConfig(config.decoder_dim, config.decoder_depth, config.decoder_heads)
    model = MaskedAutoencoder(encoder, decoder, mask_ratio=config.mask_ratio, norm_pix_loss=config.norm_pix_loss)
    if config.init is None:
        model.initialise()
    else:
        parent = load_mae(config.init)
        load_weights(model, parent.state_dict(), source=config.init)
        theirs = unseen_settings(parent)
        for option, ours in unseen_settings(model).items():
            if ours != theirs[option]:
                raise UserError(f"--init {config.init} was trained with {option} {theirs[option]}, here it is {ours}")
    return model


def check_sizes(config: Pretrain) -> None:
    """Raise a UserError that names the options if the sizes do not fit together."""
    for whole, parts in (("image_size", "patch_size"), ("embed_dim", "num_heads"), ("decoder_dim", "decoder_heads")):
        if getattr(config, whole) % getattr(config, parts):
            options = (f"--{name.replace('_', '-')} {getattr(config, name)}" for name in (whole, parts))
            raise UserError("{} is not a multiple of {}".format(*options))
    patches = (config.image_size // config.patch_size) ** 2
    if not 0 < int(patches * (1 - config.mask_ratio)) < patches:
        raise UserError(
            f"--mask-ratio {config.mask_ratio} of {patches} patches hides all of them or none: nothing to learn from"
        )


def unseen_settings(model: MaskedAutoencoder) -> dict[str, Any]:
    """Settings that the weights depend on but their shapes do not show, by option."""
    config = model.encoder.config
    return {
        "--num-heads": model.encoder.backbone.blocks[0].attn.num_heads,
        "--decoder-heads": cast(Any, model.decoder_blocks[0]).attn.num_heads,
        "--mean": tuple(config.mean),
        "--std": tuple(config.std),
    }


def load_mae(directory: Path) -> MaskedAutoencoder:
    """Load an encoder directory of stage 1 and its decoder as one network.

    Raises:
        UserError: The directory has no decoder, so it is not from stage 1.
    """
    directory = encoder_directory(directory)
    encoder = load_encoder(directory)
    found = load_decoder(directory)
    if found is None:
        raise UserError(f"{directory} has no decoder: it was not made by stage 1")
    settings, weights = found
    decoder = DecoderConfig(settings["dim"], settings["depth"], settings["num_heads"])
    model = MaskedAutoencoder(
        encoder, decoder, mask_ratio=settings["mask_ratio"], norm_pix_loss=settings["norm_pix_loss"]
    )
    shapes = {name: tensor.shape for name, tensor in model.decoder_state().items()}
    refuse_misfits(shapes, weights, source=directory / DECODER)
    model.load_state_dict(weights, strict=False)
    return model.eval()


def build_optimizer(model: MaskedAutoencoder, *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW as in the paper; only matrices have weight decay."""
    return torch.optim.AdamW(
        weight_groups(model, weight_decay), lr=lr, betas=(0.9, 0.95), fused=model.mask_token.is_cuda
    )


def parent_fingerprints(init: Path | None) -> dict[str, str]:
    """Fingerprint of the weights that a run continues from, if any.

    Raises:
        UserError: There is no encoder directory at `init`.
    """
    if init is None:
        return {}
    directory = encoder_directory(init)
    read_encoder_header(directory)
    return {"init": fingerprint(directory / WEIGHTS)}


def write_result(
    run: RunDirectory,
    model: MaskedAutoencoder,
    faces: Faces,
    config: Pretrain,
    pictures_seen: int,
    name: str = "encoder",
    chose: Mapping[str, list[str]] = MappingProxyType({}),
) -> None:
    """Write `RUN/<name>`: encoder, decoder and provenance; `chose`: task -> ids whose labels chose this very state."""
    provenance = {
        "stage": "pretrain",
        "synthetic": faces.synthetic,
        "unlabelled_videos": faces.videos,
        "labelled_videos": {},
        "chosen_on": together(chose),
        "pictures_seen": pictures_seen,
    }
    if config.init is not None:
        before = load_encoder(config.init).provenance
        provenance["unlabelled_videos"] = sorted({*faces.videos, *before["unlabelled_videos"]})
        provenance["synthetic"] = faces.synthetic and before["synthetic"]
        provenance["pictures_seen"] += before["pictures_seen"]
        provenance["labelled_videos"] = before.get("labelled_videos") or {}
        provenance["chosen_on"] = together(chosen_on(before), chose)
        provenance["synthetic_labels"] = before.get("synthetic_labels", [])
    model.encoder.provenance = provenance
    header = read_run_header(run.path)
    decoder = DecoderConfig(config.decoder_dim, config.decoder_depth, config.decoder_heads)
    write_encoder(
        run.path / name,
        model,
        decoder=asdict(decoder) | {"mask_ratio": config.mask_ratio, "norm_pix_loss": config.norm_pix_loss},
        recipe=header["config"],
        parents=header["parents"],
    )


def write_encoder(
    directory: Path,
    model: MaskedAutoencoder,
    *,
    decoder: dict[str, Any],
    recipe: dict[str, Any],
    parents: dict[str, str],
) -> None:
    """Write an encoder directory with the decoder beside the encoder.

    `decoder` has the fields of its `DecoderConfig`, `mask_ratio` and `norm_pix_loss`.
    """
    save_tensors(directory / DECODER, model.decoder_state())
    decoder |= {"weights": fingerprint(directory / DECODER)}
    save_encoder(directory, model.encoder, made_by="pretrain/run.py", recipe=recipe, parents=parents, decoder=decoder)
    write_product_card(directory)
