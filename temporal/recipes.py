"""Stage-3 recipes: named configurations of `temporal/run.py`, one table per task.

The dataclasses hold everything that defines a head and its training, and a recipe is an instance of them.
docs/temporal.md says where the papers' values come from.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

MaskForm = Literal["none", "frames", "elements", "spans"]
MaskFill = Literal["nearest", "zero"]
SmoothingKind = Literal["none", "box", "gaussian", "mode"]
SmoothingUnit = Literal["frames", "seconds"]
TaskName = Literal["va", "expr", "au", "joint"]

APART = ("features", "labels", "class_map", "out", "tracker")
"""Options that say where things are and which tracker listens. They are not part of what defines a run."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a run reads and where it writes."""

    features: tuple[Path, ...] = tyro.MISSING
    """Feature caches. Several are concatenated frame by frame."""
    labels: Path = tyro.MISSING
    """Labels: the Aff-Wild2 release or a folder in it, an MTL file or folder, a CSV or Parquet table, or class-named
    folders of pictures."""
    class_map: Path | None = None
    """JSON file that maps the labels' class names to the eight expressions (null leaves a class out)."""
    out: Path = tyro.MISSING
    """Run directory. An interrupted run in it is resumed."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Everything that determines the shape and arithmetic of a head."""

    window: int = 300
    """Frames that the network sees at once."""
    stride: int = 200
    """Frames between window starts, in training and prediction. Overlapping predictions are averaged."""
    normalise: bool = False
    """Standardise each feature with the mean and standard deviation of the training frames."""
    deviation: bool = False
    """Append each feature's deviation from its mean over the window's valid frames: how the face differs from its usual
    appearance (Baltrusaitis et al. 2015 correct action units this way). A causal head uses the mean so far."""
    valid_flag: bool = False
    """Append each cache's validity flag to its features."""
    cache_dropout: float = 0.0
    """Probability of hiding a whole cache from a training sample. At least one cache is always kept."""
    mask_form: MaskForm = "none"
    """What random masking hides during training."""
    mask_ratio: float = 0.5
    """Expected share that is hidden."""
    mask_fill: MaskFill = "nearest"
    """What replaces hidden and missing frames: the nearest frame, or zeros."""
    fusion: Literal["concat", "mean", "attention", "gated"] = "concat"
    """How the features of several caches are combined (attention: nguyen2024; gated: ours-av)."""
    fusion_width: int = 1024
    """Width of the attention or gated fusion."""
    tcn_channels: tuple[int, ...] = ()
    """Width of each temporal block; empty for no TCN."""
    tcn_kernel: int = 5
    """Kernel size of its convolutions."""
    tcn_causal: bool = False
    """Convolutions see past frames only."""
    layers: int = 0
    """Transformer layers; 0 for none."""
    width: int = 512
    """Width of the Transformer."""
    attention_heads: int = 4
    """Heads per layer."""
    feedforward: int = 512
    """Hidden width of each layer."""
    positions: bool = False
    """Add sinusoidal positions."""
    norm_first: bool = False
    """Pre-norm with GELU; otherwise post-norm with ReLU."""
    attention_causal: bool = False
    """Attend to past frames only."""
    dropout: float = 0.0
    """Dropout in the TCN and the Transformer."""
    readout: Literal["frames", "last"] = "frames"
    """frames: one prediction per frame; last: one per window, for its last frame, from all frames flattened."""
    hidden: int = 0
    """Width of the readout's hidden layer; 0 for none."""
    hidden_norm: bool = False
    """Batch normalisation after the hidden layer."""
    hidden_activation: bool = False
    """GELU after the hidden layer."""


@dataclass(frozen=True, kw_only=True)
class Temporal(Architecture, Inputs):
    """Train a temporal head on cached features (stage 3)."""

    task: Annotated[TaskName, tyro.conf.Suppress] = "va"
    recipe: Annotated[str, tyro.conf.Suppress] = ""

    folds: int = 0
    """Train this many heads, each on all but one fold of the training videos; 0: train one head. The folds are the same
    for all tasks of a release and are balanced by label."""
    hold_out: float = 0.1
    """Share of the training videos held out to choose epoch, smoothing and thresholds (without folds)."""
    tune_on: Literal["hold_out", "validation"] = "hold_out"
    """Videos on which epoch, smoothing and thresholds are chosen. With `validation` the head is trained on all training
    videos, and the run has no unbiased score: score its predictions on a test split. Use it if the encoder was trained
    on labels of all training videos, because their features are then better than those of new videos."""
    seeds: int = 1
    """Train this many heads per split, with consecutive seeds. Their average is scored."""
    epochs: float = 20
    """Passes over the windows."""
    batch_size: int = 32
    """Windows per optimizer step."""
    lr: float = 3e-5
    """AdamW learning rate after the warm-up."""
    weight_decay: float = 1e-5
    """AdamW weight decay of matrices."""
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises."""
    clip_grad: float = 0.0
    """Maximum gradient norm; 0: no clipping."""
    ema: float = 0.0
    """Decay of the moving average of the weights, which is then what is evaluated and saved; 0: no average."""
    jitter: bool = False
    """Shift every window by up to half a stride, at random in each epoch."""
    evaluations: int = 10
    """How many times the held-out videos are scored during a run. The best state is kept."""
    patience: int = 0
    """Stop after this many evaluations without a better score; 0: never."""

    ccc_over: Literal["batch", "window", "both"] = "batch"
    """Frames over which the CCC loss computes its moments."""
    mse: float = 0.0
    """Weight of the squared error in the VA loss."""
    focal: bool = False
    """Focal loss for Expr and AU (alpha .25, gamma 2)."""
    class_weights: Literal["none", "balanced", "complement"] = "none"
    """Expr. balanced: inverse square root of the class's share; complement: 1 - share (min2024)."""
    temper_prior: float = 0.0
    """Expr. The prior under which the head answers: 0: the shares of the classes in training; 1: all classes equally
    common; between: shares to the power of 1 minus this. Predictions can name another with `--prior`."""
    pos_weight: Literal["none", "balanced"] = "none"
    """AU. balanced: square root of negatives over positives, passed to the loss as `pos_weight`."""

    smoothing: SmoothingKind = "none"
    """Filter applied to the predictions."""
    smoothing_width: float = 0.0
    """Width of the filter; 0: chosen on the held-out videos."""
    smoothing_unit: SmoothingUnit = "frames"
    """Unit of the width."""
    thresholds: Literal["half", "chosen"] = "half"
    """AU thresholds: 0.5 for all, or chosen on the held-out videos."""

    withheld: tuple[str, ...] = ()
    """AUs that are left out of every output, because the head failed on them or could not be checked."""
    labels_are: Literal["real", "derived", "synthetic"] = "real"
    """What every output calls this head. real: people labelled real faces; derived: computed from such labels by a
    published rule, such as valence from votes; synthetic: of drawn or rendered faces (set automatically if
    the features say so)."""
    precision: Literal["auto", "bf16", "fp32"] = "fp32"
    """Arithmetic used in training; auto: bf16 if the hardware supports it."""
    save_every: int = 200
    """Steps between saved states, from which a run can resume."""
    log_every: int = 20
    """Steps between log records."""
    tracker: str = ""
    """Also send records to this experiment tracker, by its name in Accelerate (tensorboard, wandb, ...). Each fold and
    seed is a run of its own there."""
    seed: int = 0
    """Seed of weights, order, masks and splits."""
    allow_leak: bool = False
    """Also score validation videos whose labels taught or chose the encoder."""
    rule_clean: bool = False
    """Refuse encoders that another task's labels or validation videos taught or chose (the challenge's uni-task
    rule)."""


def architecture_of(config: Temporal) -> Architecture:
    """The part of a configuration that is saved with the head."""
    return Architecture(**{item.name: getattr(config, item.name) for item in fields(Architecture)})


def _by_task(values: dict[str, float], task: str) -> float:
    """The value for a task; `joint` uses the largest."""
    return values.get(task, max(values.values()))


def recipes(task: TaskName) -> dict[str, tuple[str, Temporal]]:
    """Recipes of a task: name -> (description, configuration)."""
    ours = Temporal(
        window=256,
        stride=128,
        normalise=True,
        deviation=True,
        valid_flag=True,
        cache_dropout=0.2,
        mask_form="spans",
        mask_ratio=0.2,
        tcn_channels=(256, 256, 256),
        layers=4,
        width=256,
        feedforward=1024,
        norm_first=True,
        dropout=0.2,
        batch_size=32,
        lr=3e-4,
        weight_decay=0.05,
        warmup=0.1,
        clip_grad=1.0,
        ema=0.995,
        jitter=True,
        evaluations=20,
        patience=6,
        ccc_over="both",
        mse=0.5,
        class_weights="balanced",
        pos_weight="balanced",
        smoothing="gaussian",
        smoothing_unit="seconds",
        thresholds="chosen",
        precision="auto",
    )
    demo = replace(
        ours,
        tune_on="validation",
        window=64,
        stride=32,
        tcn_channels=(64, 64),
        layers=1,
        width=64,
        feedforward=128,
        dropout=0.3,
        batch_size=16,
        epochs=60,
        lr=2e-3,
        ema=0.97,
        ccc_over="window",
        evaluations=8,
        patience=0,
        save_every=100,
        log_every=10,
        precision="fp32",
    )
    framewise = replace(
        demo,
        window=64,
        stride=64,
        deviation=False,
        mask_form="none",
        tcn_channels=(),
        layers=0,
        dropout=0.0,
        epochs=100,
        lr=5e-3,
        jitter=False,
        smoothing="none",
    )
    stills = replace(
        framewise,
        tune_on="hold_out",
        window=1,
        stride=1,
        batch_size=256,
        epochs=20,
        lr=2e-3,
        ema=0.99,
        ccc_over="batch",
        mse=1.0,
        class_weights="none",
        pos_weight="none",
        smoothing="gaussian",
        smoothing_width=0.4,
        thresholds="half",
    )
    mlp = replace(framewise, hidden=256, hidden_activation=True, lr=1e-3)
    ling = Temporal(
        tcn_channels=(768, 256, 128),
        tcn_causal=True,
        layers=8,
        dropout=0.3,
        hidden=256,
        hidden_norm=True,
        epochs=_by_task({"va": 40, "expr": 10, "au": 30}, task),
        warmup=2 / _by_task({"va": 40, "expr": 10, "au": 30}, task),
        evaluations=40,
        smoothing="mode" if task == "expr" else "none",
        smoothing_width=40 if task == "expr" else 0,
        precision="auto",
    )
    minimum = Temporal(
        window=100,
        stride=50,
        mask_form="elements",
        mask_ratio=0.5,
        layers=6,
        width=768,
        attention_heads=8,
        feedforward=2048,
        positions=True,
        dropout=0.5,
        readout="last",
        hidden=1024,
        hidden_norm=True,
        batch_size=512 if task == "expr" else 268,
        epochs=20,
        lr=1e-4,
        weight_decay=0.01,
        warmup=0.0,
        evaluations=20,
        patience=3,
        focal=True,
        class_weights="complement",
        precision="auto",
    )
    nguyen = Temporal(
        window=64,
        stride=64,
        fusion="attention",
        hidden=512,
        batch_size=16,
        epochs=1,
        lr=1e-5,
        weight_decay=0.0,
        warmup=0.0,
        evaluations=1,
        smoothing="box",
    )
    concat = replace(
        nguyen, fusion="concat", normalise=True, hidden_activation=True, epochs=10, lr=1e-3, evaluations=10
    )
    table = {
        "demo": ("small TCN and Transformer; trains in seconds on a laptop", demo),
        "framewise": ("linear and frame by frame: the baseline for every temporal head", framewise),
        "stills": ("the same for labelled pictures: windows of one frame, a smoothing of .4 s for video", stills),
        "mlp": ("one hidden layer, frame by frame", mlp),
        "ours": ("non-causal TCN and Transformer, span masking, validity flag, moving average, chosen smoothing", ours),
        "ours-causal": (
            "like ours, but sees past frames only, to predict while a video is running",
            replace(ours, tcn_causal=True, attention_causal=True, smoothing="none"),
        ),
        "ours-av": (
            "like ours, for faces and sound: gates weigh the caches frame by frame, each is masked on its own",
            replace(ours, fusion="gated", fusion_width=256, cache_dropout=0.3),
        ),
        "ling2024": ("arXiv 2403.11440: causal TCN, 8-layer Transformer, windows 300/200", ling),
        "min2024": ("arXiv 2403.13731: random masking, the 100 frames ending at the target, flattened", minimum),
        "min2024-frames": (
            "as the paper describes it: whole frames are hidden in training",
            replace(minimum, mask_form="frames", mask_fill="zero"),
        ),
        "min2024-multi": (
            "like min2024, but predicts every frame of a window (`multi` in its code)",
            replace(minimum, readout="frames", hidden=0, hidden_norm=False, batch_size=32),
        ),
        "nguyen2024": ("arXiv 2403.13039: attention between the scalars of two views, frame by frame", nguyen),
        "nguyen2024-concat": ("two views concatenated, then an MLP: the baseline for nguyen2024", concat),
        "nguyen2024-mean": ("the mean of two views of equal width, then an MLP", replace(concat, fusion="mean")),
    }
    return {name: (text, replace(config, task=task, recipe=name)) for name, (text, config) in table.items()}


def recipe(name: str, task: TaskName) -> Temporal:
    """Look up a recipe (use `replace` to fill in features, labels and out)."""
    return recipes(task)[name][1]
