"""Stage-2 recipes: named settings of `finetune/run.py`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from preprocessing.views import ViewName


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Fine-tuning of an encoder on expression labels (stage 2)."""

    faces: Path = tyro.MISSING
    """Faces store to train and validate on."""
    labels: Path = tyro.MISSING
    """Aff-Wild2 annotations (release root or EXPR folder), or a CSV/Parquet table of labels or votes, or the folder of
    class-named folders that the store was made from."""
    encoder: str = tyro.MISSING
    """Encoder directory, a run that made one, timm:NAME, or the folder of a published timm model."""
    out: Path = tyro.MISSING
    """Run directory; an interrupted run in it is resumed."""
    class_map: Path | None = None
    """JSON file that maps the labels' class names to the eight expressions (null: leave out); none: by name."""
    exclude: Path | None = None
    """List of ids whose recordings are left out, one per line, as `audit/folds.py` writes them."""
    view: ViewName = "full"
    """Part of the face that the encoder sees."""

    frames_per_video: int = 0
    """Frames drawn from each video and epoch, since neighbours are near-duplicates; 0: all."""
    validation_frames_per_video: int = 0
    """Most frames of each validation video that are scored, evenly spaced; 0: all."""
    pooling: Literal["average", "grid", "parent"] = "average"
    """Vision Transformers - average: of the patch tokens, then normalised, as MAE's fine-tuning does; grid: every token
    squeezed to a few channels and kept at its place in the face; parent: as the encoder was trained."""
    dropout: float = 0.0
    """Share of features dropped before the classifier in training."""
    crop_scale: tuple[float, float] = (0.7, 1.0)
    """Smallest and largest share of the picture's area in a crop."""
    randaugment: int = 0
    """RandAugment magnitude (two operations per picture, of 0..30); 0: none."""
    colour_jitter: float = 0.0
    """Largest relative change of brightness, contrast and saturation."""
    erasing: float = 0.0
    """Probability that a rectangle of the picture is erased."""
    mixup: float = 0.0
    """Alpha of mixup; 0: none. With `cutmix` each batch takes one of the two."""
    cutmix: float = 0.0
    """Alpha of cutmix; 0: none."""
    label_smoothing: float = 0.0
    """Mass spread evenly over the classes."""
    imbalance: Literal["none", "class_weights", "focal", "logit_adjustment"] = "none"
    """What is done about rare classes. On drawn and on real faces plain cross-entropy (none) gave the best macro-F1."""
    drop_path: float = 0.0
    """Stochastic depth of the last block; earlier ones less."""
    patch_drop: float = 0.0
    """Share of patch tokens dropped in training."""

    batch_size: int = 256
    """Pictures per optimizer step, over all processes."""
    micro_batch_size: int = 128
    """Most pictures that one process takes at once; accumulation steps follow from it."""
    epochs: float = 20.0
    """Passes over the drawn frames."""
    lr: float = 5e-4
    """Learning rate of the last layer after the warm-up."""
    schedule: Literal["cosine", "step"] = "cosine"
    """After the warm-up: cosine to 0, or constant with a tenth of it from 80 % of the steps on."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = 0.05
    """AdamW weight decay of matrices."""
    layer_decay: float = 1.0
    """Factor on the learning rate per layer, from the last to the first."""
    clip_grad: float = 0.0
    """Largest gradient norm; 0: no limit."""
    ema_decay: float = 0.0
    """Decay per step of the moving average of the weights, which is then what is validated and kept; 0: none."""
    evaluations: int = 20
    """How often the run is validated; the best weights are kept."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic; auto: bf16 where the hardware has it."""
    workers: int = 8
    """Processes per training process that prepare batches; 0: none."""
    save_every: int = 500
    """Steps between states to resume from."""
    log_every: int = 20
    """Steps between records."""
    tracker: str = ""
    """Send records to this experiment tracker too, by Accelerate's name for it (tensorboard, wandb, ...)."""
    seed: int = 0
    """Of the head's weights, order, crops and dropout."""


VIT_BASE = Finetune(
    frames_per_video=200,
    validation_frames_per_video=500,
    randaugment=9,
    erasing=0.25,
    mixup=0.8,
    cutmix=1.0,
    label_smoothing=0.1,
    drop_path=0.1,
    batch_size=512,
    layer_decay=0.65,
    ema_decay=0.999,
)
DEMO = replace(
    VIT_BASE,
    pooling="grid",
    dropout=0.5,
    frames_per_video=40,
    validation_frames_per_video=40,
    randaugment=0,
    colour_jitter=0.3,
    mixup=0.0,
    cutmix=0.0,
    batch_size=32,
    epochs=16.0,
    lr=7e-4,
    layer_decay=0.8,
    ema_decay=0.99,
    clip_grad=1.0,
    evaluations=5,
    workers=1,
    save_every=50,
)
PAPER = Finetune(batch_size=256, lr=1e-4)
RECIPES: dict[str, tuple[str, Finetune]] = {
    "demo": ("64 px, minutes on a laptop", DEMO),
    "small": (
        "ViT-S/16 at 112 px, a quarter of the tokens dropped",
        replace(VIT_BASE, layer_decay=0.75, patch_drop=0.25, batch_size=256),
    ),
    "vit-base": ("ours: ViT-B/16 with strong regularisation", VIT_BASE),
    "ling2024": ("arXiv 2403.11440: AdamW, batch 256, lr 1e-4, plain cross-entropy; the rest is not stated", PAPER),
    "nguyen2024": (
        "arXiv 2403.13039: MAE-Face ViT-B/16, Adam, batch 288, lr 1e-4; one training per --view (full, eyes_mouth)",
        replace(
            PAPER,
            batch_size=288,
            micro_batch_size=144,
            schedule="step",
            warmup=0.0,
            weight_decay=0.0,
            drop_path=0.1,
            crop_scale=(0.8, 1.0),
        ),
    ),
}
