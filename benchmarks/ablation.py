"""ling2024's ablation and min2024's masking claim, on SynthWild medium with reduced heads (synthetic numbers).

    python benchmarks/ablation.py --out runs/ablation

Every piece is a run of a stage command in a folder of its own, so the study goes on where it was stopped. Encoders, all
on the same corpus: `full` (stage 1, then stage 2), `no_pretrain` (stage 2 from random weights), `no_finetune` (only
stage 1, pooled as it was trained). Heads, three seeds each: a reduced ling2024, without its TCN, without its
Transformer, and ours with each form of random masking. Validation videos choose epoch, smoothing and thresholds; the
test videos' kept-apart answers score. Frames are taken away at test time in spans of ten frames on average, and filled
as a feature cache fills them.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from checkpoints.artifact import read_json, write_json
from checkpoints.errors import guarded
from temporal.recipes import Temporal, recipe

TaskName = Literal["va", "expr", "au"]
TASK_NAMES: tuple[TaskName, ...] = ("va", "expr", "au")
MISSING = (0.0, 0.25, 0.5)
SPAN = 10  # mean length of a gap, in frames

# What each row is compared with, and the paper's claim about it in words.
CLAIMS = {
    "no_pretrain": "ling2024 pre-trains on faces without labels; its table has no row without that",
    "no_finetune": "ling2024: leaving out stage 2 costs most of all",
    "no_tcn": "ling2024: leaving out the TCN costs a little on every task",
    "no_transformer": "ling2024: leaving out the Transformer costs a little on every task",
    "masking": "min2024: hiding frames at random in training makes heads robust",
    "smoothing": "smoothing predictions over time raises every score (other entrants' reports)",
}


@dataclass
class Config:
    """Run the ablation, or the rest of it, and write its table."""

    out: Path = Path("runs/ablation")
    """Folder of all runs."""
    result: Path = Path("benchmarks/results/ablation.json")
    """Where the table goes."""
    encoder: Path = Path("checkpoints/demo")
    """Stage-1 encoder."""
    size: Literal["tiny", "small", "medium"] = "medium"
    """Size of the corpus."""
    seeds: int = 3
    """Heads per row and task."""
    epochs: float = 30
    """Passes over the windows per head."""
    finetune_epochs: float = 0
    """Passes of stage 2; 0: the demo recipe's."""
    only: tuple[str, ...] = ()
    """Rows to run; none: all."""


def heads(config: Config, task: TaskName) -> dict[str, tuple[str, Temporal]]:
    """Rows: name -> (cache it reads, settings)."""
    shared: dict[str, Any] = {"window": 128, "stride": 64, "epochs": config.epochs, "evaluations": 10, "patience": 0}
    shared |= {"batch_size": 16, "lr": 1e-3, "precision": "fp32", "tune_on": "validation", "save_every": 200}
    small: dict[str, Any] = {"tcn_channels": (128, 64, 64), "layers": 2, "width": 64, "feedforward": 64, "hidden": 64}
    ling = replace(recipe("ling2024", task), **shared, **small, smoothing="gaussian", smoothing_width=0.0)
    ling = replace(ling, smoothing_unit="seconds")
    ours = replace(recipe("ours", task), **shared, tcn_channels=(64, 64), layers=1, width=64, feedforward=128)
    plain = replace(ours, mask_form="none")
    return {
        "framewise": ("full", replace(recipe("framewise", task), tune_on="validation")),
        "full": ("full", ling),
        "no_pretrain": ("no_pretrain", ling),
        "no_finetune": ("no_finetune", ling),
        "no_tcn": ("full", replace(ling, tcn_channels=())),
        "no_transformer": ("full", replace(ling, layers=0)),
        "ours_no_masking": ("full", plain),
        "ours_frames": ("full", replace(plain, mask_form="frames", mask_ratio=0.3)),
        "ours_spans": ("full", replace(plain, mask_form="spans", mask_ratio=0.3)),
        "ours_elements": ("full", replace(plain, mask_form="elements", mask_ratio=0.3)),
    }


def main(config: Config) -> dict[str, Any]:
    """Run everything that is not there yet; returns the table."""
    make_corpus(config)
    for cache in ("full", "no_pretrain", "no_finetune"):
        make_cache(config, cache)
    scores: dict[str, dict[str, dict[str, list[float]]]] = {}
    for task in TASK_NAMES:
        for name, (cache, settings) in heads(config, task).items():
            if config.only and name not in config.only:
                continue
            for seed in range(config.seeds):
                measured = head_scores(config, task, name, cache, replace(settings, seed=seed))
                for key, value in measured.items():
                    scores.setdefault(name, {}).setdefault(task, {}).setdefault(key, []).append(value)
    table = {
        row: {
            task: {key: {"mean": float(np.mean(v)), "std": float(np.std(v)), "seeds": v} for key, v in by_key.items()}
            for task, by_key in by_task.items()
        }
        for row, by_task in scores.items()
    }
    result = {
        "synthetic": True,
        "corpus": f"SynthWild {config.size}, test split",
        "seeds": config.seeds,
        "epochs": config.epochs,
        "claims": CLAIMS,
        "rows": table,
    }
    write_json(config.result, result)
    print(as_text(table))
    return result


def as_text(table: dict[str, Any]) -> str:
    """The table for people: official score by row and task, raw and smoothed, whole and with frames missing."""
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
    from preprocessing.run import Config as Preprocess
    from preprocessing.run import run
    from preprocessing.synthwild import Config as SynthWild
    from preprocessing.synthwild import generate

    corpus = config.out / "corpus"
    if not (corpus / "synthwild.json").exists():
        generate(corpus, SynthWild(size=config.size))
    if not (config.out / "faces" / "faces.json").exists():
        run(Preprocess(source=[str(corpus / "release")], out=config.out / "faces", workers=1))


def make_cache(config: Config, name: str) -> None:
    """Features of one kind of encoder."""
    from checkpoints.encoder import Encoder, load_encoder, save_encoder
    from finetune.extract import Extract
    from finetune.extract import main as extract
    from finetune.recipes import RECIPES
    from finetune.run import main as finetune

    cache = config.out / f"features_{name}"
    if (cache / "features.json").exists():
        return
    encoder = config.encoder
    if name == "no_pretrain":
        import torch

        encoder = config.out / "random_encoder"
        torch.manual_seed(0)
        like = load_encoder(config.encoder)
        fresh = Encoder(like.config, provenance={"stage": "none: random weights", "synthetic": True})
        save_encoder(encoder, fresh, made_by="benchmarks/ablation.py", recipe={}, parents={})
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
    """Train one head and score it on the test split; read from disk where that was done before."""
    from temporal.run import main as run

    place = config.out / "heads" / f"{task}_{name}_{settings.seed}"
    measured = place / "test.json"
    if measured.exists():
        return dict(read_json(measured))
    features = config.out / f"features_{cache}"
    run(replace(settings, features=(features,), labels=config.out / "corpus" / "release", out=place))
    result = {"raw": test_score(config, task, place, features, 0.0, smooth=False)}
    for share in MISSING:
        key = f"missing_{share * 100:.0f}" if share else "smooth"
        result[key] = test_score(config, task, place, features, share, smooth=True)
    write_json(measured, result)
    return result


def test_score(config: Config, task: TaskName, run: Path, features: Path, missing: float, *, smooth: bool) -> float:
    """Official score of a head on the test answers, with a share of the frames taken away."""
    from finetune.features import FeatureCache, fill_nearest
    from tasks import TASKS
    from tasks.labels import read_annotations
    from temporal.data import frame_rate
    from temporal.heads import load_head
    from temporal.predict import decode, predict_sequence

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
    """`[length]` bool: frames taken away, an expected `share` of them, in spans of SPAN frames on average."""
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
