"""Stage-2 recipes. A recipe is a named configuration of `finetune/run.py`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from preprocessing.faces import ViewName


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Fine-tune an encoder on expression labels (stage 2)."""

    faces: Path = tyro.MISSING
    """Faces store to train and validate on."""
    labels: Path = tyro.MISSING
    """Expression labels: the Aff-Wild2 release or its EXPR folder, a CSV or Parquet table of labels or votes, or the
    class-named folders that the store was made from."""
    encoder: str = tyro.MISSING
    """Encoder directory, the run that made it, timm:NAME, or the folder of a published timm model."""
    out: Path = tyro.MISSING
    """Run directory. If it holds an interrupted run, that run is resumed."""
    au_faces: Path | None = None
    """Faces store whose action units are learnt beside the expressions, such as rendered faces."""
    au_labels: Path | None = None
    """Labels of its action units, for `--au-faces`: annotations, or a table of intensities in 0..1."""
    class_map: Path | None = None
    """JSON file that maps the labels' class names to the eight expressions (null leaves a class out)."""
    exclude: Path | None = None
    """List of ids, one per line, whose recordings are left out; `audit/folds.py` writes such lists."""
    view: ViewName = "full"
    """Part of the face that the encoder sees."""

    frames_per_video: int = 0
    """Frames drawn from each video per epoch (neighbouring frames are near-duplicates); 0: all."""
    validation_frames_per_video: int = 0
    """Largest number of frames scored per validation video, evenly spaced; 0: all."""
    pooling: Literal["average", "grid"] = "average"
    """How a Vision Transformer's patch tokens become one vector. average: averaged, then normalised, as in MAE's
    fine-tuning; grid: each token is reduced to a few channels and keeps its place in the face. Other networks keep
    their own pooling."""
    dropout: float = 0.0
    """Share of the features dropped before the classifier during training."""
    crop_scale: tuple[float, float] = (0.7, 1.0)
    """Smallest and largest share of the picture's area in a crop."""
    framing_jitter: float = 0.0
    """Largest change of scale and largest shift (share of the side) of a crop; it is also rotated by up to 100 times as
    many degrees."""
    blur: float = 0.0
    """Probability that a picture is shrunk to between a quarter and all of its size and enlarged again."""
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
    imbalance: Literal["none", "logit_adjustment"] = "none"
    """Rare classes. none: plain cross-entropy, which gave the best macro-F1 on drawn and on real faces;
    logit_adjustment: the loss does not reward answering with frequent classes."""
    drop_path: float = 0.0
    """Stochastic depth of the last block; earlier blocks have less."""
    patch_drop: float = 0.0
    """Share of the patch tokens dropped during training."""

    batch_size: int = 256
    """Pictures per optimizer step over all processes."""
    micro_batch_size: int = 128
    """Largest number of pictures per forward pass and process; gradient accumulation follows from it."""
    epochs: float = 20.0
    """Passes over the drawn frames."""
    lr: float = 5e-4
    """Learning rate of the last layer after the warm-up."""
    schedule: Literal["cosine", "step"] = "cosine"
    """After the warm-up: cosine decay to 0, or constant with a drop to a tenth after 80 % of the steps."""
    warmup: float = 0.1
    """Share of the steps used for the linear warm-up."""
    weight_decay: float = 0.05
    """AdamW weight decay of matrices."""
    layer_decay: float = 1.0
    """Factor by which the learning rate shrinks per layer, from the last to the first."""
    clip_grad: float = 0.0
    """Largest gradient norm; 0: no limit."""
    ema_decay: float = 0.0
    """Decay per step of the weights' moving average, which is then validated and kept; 0: none."""
    evaluations: int = 20
    """Number of validations during the run; the best weights are kept."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic; auto uses bf16 if the hardware supports it."""
    workers: int = 8
    """Loader processes per training process; 0 loads in the training process."""
    save_every: int = 500
    """Steps between saved states."""
    log_every: int = 20
    """Steps between log records."""
    tracker: str = ""
    """Also log to this experiment tracker, by Accelerate's name for it (tensorboard, wandb, ...)."""
    seed: int = 0
    """Seed of the head's weights, the order of samples, crops and dropout."""


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
STARTER = Finetune(
    dropout=0.2,
    crop_scale=(0.75, 1.0),
    framing_jitter=0.08,
    blur=0.3,
    colour_jitter=0.3,
    erasing=0.25,
    mixup=0.2,
    drop_path=0.05,
    batch_size=128,
    epochs=24.0,
    lr=1.5e-3,
    warmup=0.05,
    clip_grad=5.0,
    ema_decay=0.998,
    evaluations=24,
    workers=1,
    save_every=250,
)
RECIPES: dict[str, tuple[str, Finetune]] = {
    "demo": ("64 px, minutes on a laptop", DEMO),
    "starter": ("the shipped starter weights: raters' votes as soft targets, a convolutional network", STARTER),
    "small": (
        "ViT-S/16 at 112 px, a quarter of the tokens dropped",
        replace(VIT_BASE, layer_decay=0.75, patch_drop=0.25, batch_size=256),
    ),
    "balanced": (
        "the same with a logit-adjusted loss, which aims at the balanced error rather than the accuracy",
        replace(VIT_BASE, layer_decay=0.75, patch_drop=0.25, batch_size=256, imbalance="logit_adjustment"),
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
