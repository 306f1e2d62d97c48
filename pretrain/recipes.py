"""The recipes of stage 1: named configurations of `pretrain/run.py`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Masked-autoencoder pretraining on faces stores (stage 1)."""

    faces: tuple[str | Path, ...] = tyro.MISSING
    """Faces stores to train on. If a picture is in several stores, only the first store's copy is used. If one is an
    address (s3://..., hf://..., file://...), all are streamed shard by shard, and duplicates stay."""
    weights: tuple[float, ...] = ()
    """Share of each store in the batches, in the order of the stores; empty: in proportion to their pictures."""
    exclude: Path | None = None
    """File with ids of recordings to leave out, one per line, as written by `audit/folds.py`."""
    out: Path = tyro.MISSING
    """Run directory; if it holds an interrupted run, the run is resumed."""
    init: Path | None = None
    """Encoder directory of stage 1 (with its decoder) to continue from."""

    probe_faces: Path | None = None
    """Labelled faces store for a probe: classifiers on frozen features are scored on it at intervals, and the best
    encoder so far is kept in `best/`."""
    probe_labels: Path | None = None
    """Expression annotations of the probe's faces."""
    probe_class_map: Path | None = None
    """JSON file that says what class names or numbers in them mean; see docs/labels.md."""

    architecture: str = "vit_base_patch16_224"
    """timm Vision Transformer that the encoder's other settings come from."""
    image_size: int = 224
    """Input size in pixels."""
    patch_size: int = 16
    """Patch size in pixels."""
    embed_dim: int = 768
    """Width of the encoder."""
    depth: int = 12
    """Number of encoder blocks."""
    num_heads: int = 12
    """Attention heads per encoder block."""
    decoder_dim: int = 384
    """Width of the decoder."""
    decoder_depth: int = 4
    """Number of decoder blocks."""
    decoder_heads: int = 12
    """Attention heads per decoder block."""
    mask_ratio: float = 0.75
    """Fraction of patches that are masked."""
    norm_pix_loss: bool = True
    """Normalise each target patch to mean 0 and variance 1."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Per-channel mean, subtracted from images in [0, 1]."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Per-channel standard deviation that images are divided by."""

    crop_scale: tuple[float, float] = (0.5, 1.0)
    """Smallest and largest fraction of a picture's area in a crop."""
    crops: Literal["mae", "fast"] = "mae"
    """mae: drawn and resized as He et al. do (torchvision's RandomResizedCrop, bicubic); fast: sides clamped to the
    picture instead of drawn again, bilinear."""
    batch_size: int = 1024
    """Pictures per optimizer step, over all processes."""
    micro_batch_size: int = 256
    """Most pictures per forward pass of one process; the number of accumulation steps follows from it."""
    epochs: float = 400
    """Passes over the pictures; sets the number of steps unless `steps` is given."""
    steps: int = 0
    """Optimizer steps; 0: computed from `epochs`."""
    warmup: float = 0.05
    """Fraction of the steps used for learning-rate warm-up."""
    lr: float = 6e-4
    """Learning rate after the warm-up (for this batch size)."""
    weight_decay: float = 0.05
    """AdamW weight decay; applies only to matrices."""
    clip_grad: float = 0.0
    """Largest gradient norm; 0: no clipping."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Precision of the computation; auto: bf16 where the hardware supports it natively."""
    compile: bool = False
    """Compile the network: takes minutes at the start, then steps are faster on GPUs."""
    workers: int = 8
    """Data-loading processes per training process; 0: load in the training process."""
    save_every: int = 500
    """Steps between saved states to resume from."""
    log_every: int = 20
    """Steps between log records."""
    looks: int = 10
    """Number of times that reconstructions are drawn and the probe is scored, evenly spaced over the run."""
    tracker: str = ""
    """Also send records to this experiment tracker, by its name in Accelerate (tensorboard, wandb, ...)."""
    seed: int = 0
    """Seed of initial weights, order, crops and masks."""


VIT_BASE = Pretrain()
DEMO = replace(
    VIT_BASE,
    architecture="vit_tiny_patch16_224",
    image_size=64,
    patch_size=8,
    embed_dim=160,
    depth=5,
    num_heads=5,
    decoder_dim=96,
    decoder_depth=2,
    decoder_heads=3,
    norm_pix_loss=False,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    crop_scale=(0.6, 1.0),
    crops="fast",
    batch_size=128,
    epochs=24,
    lr=1.5e-3,
    clip_grad=1.0,
    workers=1,
    save_every=100,
)
RECIPES: dict[str, tuple[str, Pretrain]] = {
    "demo": ("64 px, 1.6 M weights: minutes on a laptop", DEMO),
    "small": (
        "ViT-S/16 at 112 px",
        replace(VIT_BASE, architecture="vit_small_patch16_224", image_size=112, embed_dim=384, num_heads=6),
    ),
    "vit-base": ("ours: ViT-B/16 with a light decoder", VIT_BASE),
    "vit-large": (
        "ViT-L/16 with a light decoder",
        replace(VIT_BASE, architecture="vit_large_patch16_224", embed_dim=1024, depth=24, num_heads=16),
    ),
    "ling2024": (
        "arXiv 2403.11440: ViT-B/16, 75 %, pixel loss, batch 1024, lr 5e-4, 500 epochs",
        replace(
            VIT_BASE,
            decoder_dim=512,
            decoder_depth=8,
            decoder_heads=16,
            norm_pix_loss=False,
            crop_scale=(0.2, 1.0),
            lr=5e-4,
            epochs=500,
        ),
    ),
}
