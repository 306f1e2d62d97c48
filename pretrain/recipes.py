"""Stage-1 recipes: named settings of `pretrain/run.py`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Masked-autoencoder pretraining on faces stores (stage 1)."""

    faces: tuple[str | Path, ...] = tyro.MISSING
    """Faces stores to train on. Of near-duplicates in different stores the first store's is kept. A single one may be
    an address (s3://..., hf://..., file://...): it is streamed, shard by shard."""
    weights: tuple[float, ...] = ()
    """Share of each store in the batches, in the order of the stores; none: by number of pictures."""
    exclude: Path | None = None
    """List of ids whose recordings are left out, one per line, as `audit/folds.py` writes them."""
    out: Path = tyro.MISSING
    """Run directory; an interrupted run in it is resumed."""
    init: Path | None = None
    """Stage-1 encoder directory (with its decoder) to continue from."""

    probe_faces: Path | None = None
    """Labelled faces store: classifiers on frozen features are scored on it now and then, and the encoder that was best
    at it is kept in `best/`."""
    probe_labels: Path | None = None
    """Its expression annotations."""

    architecture: str = "vit_base_patch16_224"
    """timm Vision Transformer that gives the encoder its defaults."""
    image_size: int = 224
    """Side of the input in pixels."""
    patch_size: int = 16
    """Side of a patch in pixels."""
    embed_dim: int = 768
    """Width of the encoder."""
    depth: int = 12
    """Blocks of the encoder."""
    num_heads: int = 12
    """Attention heads per encoder block."""
    decoder_dim: int = 384
    """Width of the decoder."""
    decoder_depth: int = 4
    """Blocks of the decoder."""
    decoder_heads: int = 12
    """Attention heads per decoder block."""
    mask_ratio: float = 0.75
    """Share of patches that are hidden."""
    norm_pix_loss: bool = True
    """Normalise each target patch."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from images in [0, 1], per channel."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Divided by, per channel."""

    crop_scale: tuple[float, float] = (0.5, 1.0)
    """Smallest and largest share of the picture's area in a crop."""
    batch_size: int = 1024
    """Pictures per optimizer step, over all processes."""
    micro_batch_size: int = 256
    """Most pictures that one process takes at once; accumulation steps follow from it."""
    epochs: float = 400
    """Passes over the pictures; decides the number of steps unless `steps` is given."""
    steps: int = 0
    """Optimizer steps; 0: from `epochs`."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises."""
    lr: float = 6e-4
    """Learning rate after the warm-up (for this batch size)."""
    weight_decay: float = 0.05
    """AdamW weight decay of matrices."""
    clip_grad: float = 0.0
    """Largest gradient norm; 0: no limit."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic; auto: bf16 where the hardware has it."""
    compile: bool = False
    """Compile the network first: minutes at the start, faster steps on GPUs."""
    workers: int = 8
    """Processes per training process that prepare batches; 0: none."""
    save_every: int = 500
    """Steps between states to resume from."""
    log_every: int = 20
    """Steps between records."""
    looks: int = 10
    """How often reconstructions are drawn and the probe is scored, evenly over the run."""
    tracker: str = ""
    """Send records to this experiment tracker too, by Accelerate's name for it (tensorboard, wandb, ...)."""
    seed: int = 0
    """Of weights, order, crops and masks."""


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
