"""What stage 2 trains: an encoder under a linear classifier."""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import torch
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay
from torch import nn

from checkpoints.encoder import load_encoder, read_encoder_header
from checkpoints.errors import UserError
from checkpoints.forms import checked
from checkpoints.network import SQUEEZE, Encoder
from checkpoints.tensors import checked_weights, load_tensors, load_weights
from wildaffect.tasks import AU, EXPRESSIONS
from wildaffect.training.rundir import read_run_header

WEIGHTS = "classifier.safetensors"


class Settings(TypedDict):
    """What is read of a run's configuration."""

    view: str


class Classifier(nn.Module):
    """Encoder, dropout and linear layer: uint8 images `[B, 3, S, S]` to logits `[B, 8]`.

    Args:
        encoder: The encoder.
        dropout: Share of the features dropped in training.
        units: Learn action units beside the expressions, with a layer of their own: logits `[B, 8 + 12]`. They come
            from other pictures, so batch normalisation keeps the encoder's statistics, those of its own training faces.
    """

    def __init__(self, encoder: Encoder, dropout: float = 0.0, *, units: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.dim, len(EXPRESSIONS))
        self.units = nn.Linear(encoder.dim, AU.out_dim) if units else None
        for layer in self.layers:
            nn.init.trunc_normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    @property
    def layers(self) -> list[nn.Linear]:
        """The linear layers on the features."""
        return [self.head] if self.units is None else [self.head, self.units]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits `[B, 8]`, or `[B, 8 + 12]`."""
        features = self.dropout(self.encoder(images))
        return torch.cat([layer(features) for layer in self.layers], dim=1)

    def train(self, mode: bool = True) -> "Classifier":
        """Switch to training or evaluation."""
        super().train(mode)
        if self.units is not None:
            for module in self.encoder.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


def load_classifier(run: Path) -> tuple[Classifier, str]:
    """The classifier that a run of `finetune/run.py` ended with, and the view it takes.

    Raises:
        UserError: The directory holds no finished run of stage 2.
    """
    if not (run / WEIGHTS).exists():
        raise UserError(f"{run} has no {WEIGHTS}: it is not a finished run of finetune/run.py")
    view = checked(read_run_header(run)["config"], Settings, run / "config.json")["view"]
    model = Classifier(load_encoder(run))
    load_weights(model.head, load_tensors(run / WEIGHTS), source=run)
    header = run / "encoder" / "config.json"
    checked_weights(run / WEIGHTS, read_encoder_header(header.parent).get("classifier", ""), header)
    return model.eval(), view


def trainable(encoder: Encoder, *, pooling: str, drop_path: float, patch_drop: float) -> Encoder:
    """Copy an encoder into the form in which it is fine-tuned.

    Args:
        encoder: The parent, left as it is.
        pooling: `average` or `grid`; networks other than plain Vision Transformers keep their own pooling.
            `average` takes the mean of the patch tokens before the final norm instead of after it; the norm's weights
            move along.
        drop_path: Stochastic depth.
        patch_drop: Share of patch tokens dropped in training.
    """
    config = encoder.config
    kwargs: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    if isinstance(encoder.backbone, VisionTransformer):
        if patch_drop:
            kwargs["patch_drop_rate"] = patch_drop
        if pooling == "average":
            config = replace(config, kwargs=config.kwargs | {"global_pool": "avg"}, pooling="model")
        elif pooling == "grid":
            if patch_drop:
                raise UserError("--patch-drop leaves holes in the token grid: use --pooling average or --patch-drop 0")
            config = replace(config, pooling="grid")
    try:
        copy = Encoder(replace(config, kwargs=config.kwargs | kwargs), provenance=encoder.provenance)
    except UserError as error:
        if "drop_path_rate" not in str(error):
            raise
        raise UserError(f"{config.architecture} does not support stochastic depth: use --drop-path 0") from None
    # timm names the norm behind the pooling `fc_norm`.
    moved = (
        "fc_norm." if hasattr(copy.backbone, "fc_norm") and not isinstance(copy.backbone.fc_norm, nn.Identity) else ""
    )
    # A pooling with weights of its own (SigLIP's) goes where another takes its place.
    pool = "attn_pool."
    kept = any(name.startswith(pool) for name in copy.weights())
    weights = {name: w for name, w in encoder.weights().items() if kept or not name.startswith(pool)}
    if moved and not any(name.startswith(moved) for name in weights):
        weights = {name.replace("norm.", moved) if name.startswith("norm.") else name: w for name, w in weights.items()}
    fresh = {name: tensor for name, tensor in copy.weights().items() if name.startswith(SQUEEZE)}
    copy.load(fresh | weights, source="the parent encoder")
    return copy


def product(trained: Encoder, parent: Encoder) -> Encoder:
    """The trained encoder without what only training needed (stochastic depth, token dropping)."""
    kept = parent.config.kwargs.keys() | {"global_pool"}
    kwargs = {name: value for name, value in trained.config.kwargs.items() if name in kept}
    encoder = Encoder(replace(trained.config, kwargs=kwargs), provenance=trained.provenance)
    encoder.load(trained.weights(), source="the trained encoder")
    return encoder.eval()


def parameter_groups(model: Classifier, *, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups: the learning rate falls by `layer_decay` per layer towards the input; the head has it whole."""
    backbone = model.encoder.backbone
    spared: Any = backbone.no_weight_decay() if hasattr(backbone, "no_weight_decay") else ()
    groups = param_groups_layer_decay(
        backbone, weight_decay=weight_decay, no_weight_decay_list=spared, layer_decay=layer_decay
    )
    new = [layer for layer in (*model.layers, model.encoder.squeeze) if layer is not None]
    return [
        *groups,
        {"params": [layer.weight for layer in new], "weight_decay": weight_decay},
        {"params": [layer.bias for layer in new], "weight_decay": 0.0},
    ]


def build_optimizer(model: Classifier, *, lr: float, weight_decay: float, layer_decay: float) -> torch.optim.Optimizer:
    """AdamW over :func:`parameter_groups`."""
    groups = parameter_groups(model, weight_decay=weight_decay, layer_decay=layer_decay)
    return torch.optim.AdamW(groups, lr=lr, fused=model.head.weight.is_cuda)
