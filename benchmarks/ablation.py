"""Repeats ling2024's ablation and min2024's masking claim on SynthWild medium with reduced heads (synthetic numbers).

    python benchmarks/ablation.py --out runs/ablation

Every run of a stage command has its own folder, so an interrupted study resumes where it was. Three encoders of the
same shape are trained on the same corpus: `full` (stage 1, then stage 2), `no_pretrain` (stage 2 from random weights)
and `no_finetune` (the start of stage 2: stage 1's weights under an untrained squeeze layer). Heads read standardised
features in windows of 128 with stride 64; all have the same width, batch size, learning rate and number of epochs, and
are trained with several seeds. Each encoder is trained once. Epoch, smoothing and thresholds are chosen on validation
videos; scores are computed on the held-out answers of the test videos. At test time, frames are removed in spans of ten
on average and filled with the nearest frame, as in a feature cache; the rows `min2024_frames` and `min2024_zeros` fill
hidden and missing frames with zeros, as the paper does.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from benchmarks.seeds import over_seeds
from checkpoints.artifact import read_json, write_json
from checkpoints.encoder import load_encoder, save_encoder
from checkpoints.errors import guarded
from checkpoints.network import Encoder
from features.cache import FeatureCache, fill_nearest
from features.run import Extract
from features.run import main as extract
from finetune.classifier import trainable
from finetune.recipes import RECIPES
from finetune.run import main as finetune
from preprocessing.run import Config as Preprocess
from preprocessing.run import run as preprocess
from synthwild.run import Config as SynthWild
from synthwild.run import generate
from temporal.data import frame_rate
from temporal.heads import load_head
from temporal.predict import decode, predict_sequence
from temporal.recipes import Temporal, recipe
from temporal.run import main as train_head
from wildaffect.tasks import TASKS
from wildaffect.tasks.labels import read_annotations

TaskName = Literal["va", "expr", "au"]
TASK_NAMES: tuple[TaskName, ...] = ("va", "expr", "au")
MISSING = (0.0, 0.25, 0.5)
SPAN = 10  # mean length of a gap, in frames


@dataclass(frozen=True)
class Claim:
    """A claim of a paper: that `row` beats `reference` in `column`."""

    text: str
    row: str
    reference: str
    column: str = "smooth"


CLAIMS = {
    "stage 1": Claim(
        "ling2024: pre-training on faces without labels helps (no row of its table)", "full", "no_pretrain"
    ),
    "stage 2": Claim("ling2024: fine-tuning on expressions helps most of all", "full", "no_finetune"),
    "TCN": Claim("ling2024: the TCN helps a little on every task", "full", "no_tcn"),
    "Transformer": Claim("ling2024: the Transformer helps a little on every task", "full", "no_transformer"),
    "masked elements": Claim("min2024 (code): hiding elements in training helps", "min2024", "min2024_no_masking"),
    "masked frames": Claim("min2024 (words): hiding frames in training helps", "min2024_frames", "min2024_zeros"),
    "masked frames, half missing": Claim(
        "min2024 (words): and makes heads robust", "min2024_frames", "min2024_zeros", "missing_50"
    ),
    "masked spans": Claim("ours: hiding spans in training costs nothing", "ours", "ours_no_masking"),
    "masked spans, half missing": Claim(
        "ours: and makes heads robust to missing frames", "ours", "ours_no_masking", "missing_50"
    ),
    "ours": Claim("ours beats ling2024 on equal features", "ours", "full"),
    "ours, raw": Claim("also without smoothing and thresholds", "ours", "full", "raw"),
}


@dataclass
class Config:
    """Run whatever part of the ablation is missing, and write its table."""

    out: Path = Path("runs/ablation")
    """Folder of all runs."""
    result: Path = Path("benchmarks/results/ablation.json")
    """File for the table."""
    encoder: Path = Path("checkpoints/demo")
    """Stage-1 encoder."""
    size: Literal["tiny", "small", "medium"] = "medium"
    """Size of the corpus."""
    model: Path | None = None
    """The morphable face model of synthwild/morphable.py, for a rendered corpus; none: it is drawn."""
    seeds: int = 3
    """Number of heads per row and task."""
    epochs: float = 8
    """Passes over the windows per head."""
    finetune_epochs: float = 0
    """Passes of stage 2; 0: the demo recipe's."""
    only: tuple[str, ...] = ()
    """Rows to run; none: all."""


def heads(config: Config, task: TaskName) -> dict[str, tuple[str, Temporal]]:
    """The rows: name -> (cache to read, settings)."""
    shared: dict[str, Any] = {"window": 128, "stride": 64, "epochs": config.epochs, "evaluations": 5, "patience": 0}
    shared |= {"batch_size": 8, "lr": 1e-3, "tune_on": "validation", "save_every": 10_000, "normalise": True}
    shared |= {"layers": 2, "width": 64, "attention_heads": 4, "smoothing": "gaussian", "smoothing_unit": "seconds"}
    shared |= {"smoothing_width": 0.0}
    channels = (64, 64, 64)
    ling = replace(recipe("ling2024", task), **shared, tcn_channels=channels, feedforward=64, hidden=64)
    minimum = replace(recipe("min2024-multi", task), **shared, feedforward=256)
    # Few steps: a moving average of the recipe's length would not have left the start.
    ours = replace(recipe("ours", task), **shared, tcn_channels=channels, feedforward=256, ema=0.97)
    frame_by_frame = {key: shared[key] for key in ("tune_on", "smoothing", "smoothing_unit", "smoothing_width")}
    frame_by_frame |= {"epochs": 3 * config.epochs}  # steps of theirs cost next to nothing
    return {
        "framewise": ("full", replace(recipe("framewise", task), **frame_by_frame)),
        "mlp": ("full", replace(recipe("mlp", task), **frame_by_frame)),
        "full": ("full", ling),
        "no_pretrain": ("no_pretrain", ling),
        "no_finetune": ("no_finetune", ling),
        "no_tcn": ("full", replace(ling, tcn_channels=())),
        "no_transformer": ("full", replace(ling, layers=0)),
        "min2024": ("full", minimum),
        "min2024_frames": ("full", replace(minimum, mask_form="frames", mask_fill="zero")),
        "min2024_zeros": ("full", replace(minimum, mask_form="none", mask_fill="zero")),
        "min2024_no_masking": ("full", replace(minimum, mask_form="none")),
        "ours": ("full", ours),
        "ours_frames": ("full", replace(ours, mask_form="frames")),
        "ours_no_masking": ("full", replace(ours, mask_form="none")),
    }


def main(config: Config) -> dict[str, Any]:
    """Run everything that is missing and return the table."""
    rows = {
        task: {name: how for name, how in heads(config, task).items() if not config.only or name in config.only}
        for task in TASK_NAMES
    }
    make_corpus(config)
    for cache in sorted({cache for by_name in rows.values() for cache, _ in by_name.values()}):
        make_cache(config, cache)
    scores: dict[str, dict[str, dict[str, list[float]]]] = {}
    for task, by_name in rows.items():
        for name, (cache, settings) in by_name.items():
            for seed in range(config.seeds):
                measured = head_scores(config, task, name, cache, replace(settings, seed=seed))
                for key, value in measured.items():
                    scores.setdefault(name, {}).setdefault(task, {}).setdefault(key, []).append(value)
    table = {
        row: {task: {key: over_seeds(v) for key, v in by_key.items()} for task, by_key in by_task.items()}
        for row, by_task in scores.items()
    }
    result = {
        "synthetic": True,
        "corpus": f"SynthWild {config.size}{', rendered' if config.model else ''}, test split",
        "seeds": config.seeds,
        "epochs": config.epochs,
        "claims": {
            name: judge(claim, table) for name, claim in CLAIMS.items() if {claim.row, claim.reference} <= set(table)
        },
        "rows": table,
    }
    write_json(config.result, result)
    print(as_text(table))
    return result


def judge(claim: Claim, table: dict[str, Any]) -> dict[str, Any]:
    """Difference between a claim's two rows by task: mean and standard deviation over the seeds."""
    found: dict[str, Any] = {"claim": claim.text, "row": claim.row, "against": claim.reference, "column": claim.column}
    for task in TASK_NAMES:
        pair = [
            table[name].get(task, {}).get(claim.column, {}).get("seeds", []) for name in (claim.row, claim.reference)
        ]
        if pair[0] and len(pair[0]) == len(pair[1]):
            difference = np.subtract(*pair)
            found[task] = {"mean": float(difference.mean()), "std": float(difference.std())}
    return found


def as_text(table: dict[str, Any]) -> str:
    """The table as text: official score by row and task, raw and smoothed, with all frames and with some missing."""
    columns = ["smooth", "raw", "missing_25", "missing_50"]
    lines = [f"{'row':18}" + "".join(f"{task + ' ' + column:>20}" for task in TASK_NAMES for column in columns)]
    for row, by_task in table.items():
        cells = []
        for task in TASK_NAMES:
            for column in columns:
                item = by_task.get(task, {}).get(column)
                cells.append(f"{item['mean']:.3f} +- {item['std']:.3f}" if item else "")
        lines.append(f"{row:18}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)


def make_corpus(config: Config) -> None:
    """Draw SynthWild and find its faces."""
    corpus = config.out / "corpus"
    if not (corpus / "synthwild.json").exists():
        faces: Literal["drawn", "rendered"] = "rendered" if config.model else "drawn"
        generate(corpus, SynthWild(size=config.size, faces=faces, model=config.model))
    if not (config.out / "faces" / "faces.json").exists():
        preprocess(Preprocess(source=[str(corpus / "release")], out=config.out / "faces", workers=1))


def make_cache(config: Config, name: str) -> None:
    """Features of one kind of encoder."""
    cache = config.out / f"features_{name}"
    if (cache / "features.json").exists():
        return
    encoder = config.encoder
    if name != "full":
        torch.manual_seed(0)
        parent = load_encoder(config.encoder)
        start = trainable(parent, pooling=RECIPES["demo"][1].pooling, drop_path=0.0, patch_drop=0.0)
        if name == "no_pretrain":
            start = Encoder(start.config, provenance={"stage": "none: random weights", "synthetic": True})
        encoder = config.out / f"start_{name}"
        save_encoder(encoder, start, made_by="benchmarks/ablation.py", recipe={}, parents={})
    if name != "no_finetune":
        settings = RECIPES["demo"][1]
        if config.finetune_epochs:
            settings = replace(settings, epochs=config.finetune_epochs)
        place = config.out / f"finetune_{name}"
        labels = config.out / "corpus" / "release"
        finetune(replace(settings, faces=config.out / "faces", labels=labels, encoder=str(encoder), out=place))
        encoder = place
    extract(Extract(encoder=str(encoder), faces=config.out / "faces", out=cache))


def head_scores(config: Config, task: TaskName, name: str, cache: str, settings: Temporal) -> dict[str, float]:
    """Train one head and score it on the test split, unless the scores are already on disk."""
    place = config.out / "heads" / f"{task}_{name}_{settings.seed}"
    measured = place / "test.json"
    if measured.exists():
        return dict(read_json(measured))
    features = config.out / f"features_{cache}"
    train_head(replace(settings, features=(features,), labels=config.out / "corpus" / "release", out=place))
    result = {"raw": test_score(config, task, place, features, 0.0, smooth=False)}
    for share in MISSING:
        key = f"missing_{share * 100:.0f}" if share else "smooth"
        result[key] = test_score(config, task, place, features, share, smooth=True)
    write_json(measured, result)
    return result


def test_score(config: Config, task: TaskName, run: Path, features: Path, missing: float, *, smooth: bool) -> float:
    """Official score of a head on the test answers, with a share of the frames removed."""
    head, cache = load_head(run), FeatureCache(features)
    total: np.ndarray | None = None
    rng = np.random.default_rng(1)
    for id, track in read_annotations(config.out / "corpus" / "answers" / task, TASKS[task]).items():
        read = cache.read(id, len(track))
        valid = read.valid & ~gaps(len(track), missing, rng)
        filled = fill_nearest(read.features, valid, np.arange(len(track)))
        rate = frame_rate(read.time_s)
        values = predict_sequence(head, filled, valid, rate=rate, smooth=smooth)[task]
        decoded = decode([head], task, values, rate) if smooth else TASKS[task].decode(values)
        statistics = TASKS[task].statistics(decoded, track.labels, track.mask)
        total = statistics if total is None else total + statistics
    assert total is not None, "the corpus has no test answers"
    return float(TASKS[task].score_statistics(total)["score"])


def gaps(length: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """`[length]` bool: frames to remove, a `share` of them on average, in spans of SPAN frames on average."""
    draws = rng.random(length)
    enter = share / max(1e-9, 1 - share) / SPAN
    gone = np.zeros(length, bool)
    state = bool(length) and draws[0] < share
    for t in range(length):
        if t:
            state = draws[t] >= 1 / SPAN if state else draws[t] < enter
        gone[t] = state
    return gone


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))
