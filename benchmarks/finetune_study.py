"""Compares stage 2 with and without stage 1, with two losses for rare classes, and with fusions of two views.

    python benchmarks/finetune_study.py --out runs/finetune_study --corpus CORPUS --faces STORE [--real RUN]

On SynthWild `medium` (synthetic numbers; training, validation and test have no person in common) with the demo's
encoder: from MAE weights, from scratch and as a linear probe of the frozen encoder; logit adjustment against plain
cross-entropy; fusions of two fine-tuned views against the full face alone. On FER+ with the encoder of a
`real_faces.py` run: from MAE weights, from scratch and as a linear probe. Weights, heads and regularisation are chosen
on validation; macro F1 is computed on the test split, and on FER+ `validation`, which nothing else saw.

Every run has its own folder, so an interrupted study resumes where it was. All rows of one seed are run before the next
seed, and the table always shows the results so far. `results/finetune_study.json` also holds class weights and focal
loss, which stage 2 no longer offers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from sklearn.linear_model import LogisticRegression

from benchmarks.real_faces import STARTS, Real, finetune_recipe, save_untrained
from checkpoints.artifact import read_json, write_json
from checkpoints.encoder import load_encoder
from checkpoints.errors import guarded
from checkpoints.network import Encoder
from features.cache import FeatureCache
from features.run import Extract
from features.run import main as extract
from finetune.evaluate import Evaluate
from finetune.evaluate import main as evaluate
from finetune.frames import EpochDraw
from finetune.labels import Split, join, read_split
from finetune.recipes import RECIPES, Finetune
from finetune.run import main as finetune
from preprocessing.faces import FacesStore
from preprocessing.views import StillFrames
from temporal.heads import load_head
from temporal.predict import predict_cached
from temporal.recipes import recipe
from temporal.run import main as train
from wildaffect.tasks import EXPRESSIONS, TASKS
from wildaffect.tasks.class_map import ClassMap
from wildaffect.tasks.labels import read_annotations, read_every_split
from wildaffect.tasks.metrics import confusion, macro_f1
from wildaffect.tasks.task import EXPR
from wildaffect.training.images import work_ahead

DEMO = RECIPES["demo"][1]
# Row -> (starts from stage 1, what differs from the demo's recipe). Rows that compare no losses are trained with logit
# adjustment, which was the demo's loss when the study began.
ADJUSTED = {"imbalance": "logit_adjustment"}
ROWS: dict[str, tuple[bool, dict[str, Any]]] = {
    "mae": (True, ADJUSTED),
    "scratch": (False, ADJUSTED),
    "cross_entropy": (True, {"imbalance": "none"}),
    "eyes_mouth": (True, {**ADJUSTED, "view": "eyes_mouth"}),
}
PROBES = ("probe_mean", "probe_tokens")
# Head -> (recipe of temporal/run.py, caches, what differs from the recipe): `attention_published` is trained as in the
# paper, one pass at lr 1e-5; the two attentions above it as the plain forms are.
PLAIN = {"epochs": 10.0, "lr": 1e-3, "evaluations": 10, "normalise": True, "hidden_activation": True}
HEADS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "full": ("nguyen2024-concat", ("mae",), {}),
    "eyes_mouth": ("nguyen2024-concat", ("eyes_mouth",), {}),
    "mean": ("nguyen2024-mean", ("mae", "eyes_mouth"), {}),
    "concat": ("nguyen2024-concat", ("mae", "eyes_mouth"), {}),
    "attention_256": ("nguyen2024", ("mae", "eyes_mouth"), {**PLAIN, "fusion_width": 256}),
    "attention_1024": ("nguyen2024", ("mae", "eyes_mouth"), PLAIN),
    "attention_published": ("nguyen2024", ("mae", "eyes_mouth"), {}),
}


@dataclass
class Config:
    """Run whatever part of the study is missing, and write its table."""

    corpus: Path
    """SynthWild `medium`, written by synthwild/run.py."""
    faces: Path
    """Faces store of its release."""
    out: Path = Path("runs/finetune_study")
    """Folder of all runs."""
    result: Path = Path("benchmarks/results/finetune_study.json")
    """File for the table."""
    real: Path | None = None
    """Run of benchmarks/real_faces.py, for the rows on FER+."""
    encoder: Path = Path("checkpoints/demo")
    """Stage-1 encoder of SynthWild."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Number of training runs per row."""
    epochs: float = 4.0
    """Passes over 40 frames of each training video (the demo's recipe: 16)."""
    real_epochs: float = 0.5
    """Passes over FER+."""
    only: tuple[str, ...] = ()
    """Parts to run (`synthwild`, `fusion`, `ferplus`); none: all."""


def main(config: Config) -> dict[str, Any]:
    """Run everything that is missing and return the table."""
    save_untrained(config.out / "fresh", config.encoder, made_by="benchmarks/finetune_study.py")
    for part, number, name, work in pieces(config):
        measured = config.out / part / f"{name}_{number}.json"
        if (not config.only or part in config.only) and not measured.exists():
            print(f"\n=== {part}: {name}, seed {number}", flush=True)
            write_json(measured, {"macro_f1": work()})
            write_table(config)
    return write_table(config)


def pieces(config: Config) -> Iterator[tuple[str, int, str, Callable[[], float]]]:
    """All pieces: part, seed, row, and the function that computes its macro F1."""
    synthwild = Data(config.faces, config.corpus / "release", config.faces, config.corpus / "answers" / "expr")
    for seed in config.seeds:
        for row in ROWS:
            yield "synthwild", seed, row, partial(finetuned, config, synthwild, row, seed)
        for row in PROBES:
            yield "synthwild", seed, row, partial(probe, config.encoder, synthwild, row, seed, 40)
        for row in HEADS:
            yield "fusion", seed, row, partial(fused, config, row, seed)
    if config.real is None:
        return
    real = ferplus(config.real)
    for seed in config.seeds:
        for row in ("mae", "scratch"):
            yield "ferplus", seed, row, partial(finetuned_real, config, real, row, seed)
        for row in PROBES:
            yield "ferplus", seed, row, partial(probe, config.real / "pretrain", real, row, seed, 0)


@dataclass(frozen=True)
class Data:
    """Training and test data."""

    faces: Path
    labels: Path
    test_faces: Path
    test_labels: Path

    @cached_property
    def split(self) -> Split:
        """Training and validation frames."""
        return read_split(FacesStore(self.faces), self.labels)

    def test(self, run: Path) -> float:
        """Macro F1 of a run of finetune/run.py on the people of the test split."""
        chosen = Evaluate(run=run, faces=self.test_faces, labels=self.test_labels, split="all")
        return float(evaluate(chosen)["macro_f1"])


def ferplus(real: Path) -> Data:
    """FER+ as in a run of benchmarks/real_faces.py."""
    train, test = (real / "faces" / name for name in ("ferplus", "ferplus_validation"))
    return Data(train, train / "labels.parquet", test, test / "labels.parquet")


def run_finetune(settings: Finetune, data: Data, encoder: Path, place: Path) -> Path:
    """Fine-tune, or resume fine-tuning; returns the run."""
    paths: dict[str, Any] = {"faces": data.faces, "labels": data.labels, "encoder": str(encoder), "out": place}
    finetune(replace(settings, evaluations=2, **paths))
    return place


def finetuned(config: Config, data: Data, row: str, seed: int) -> float:
    """One row on SynthWild."""
    pretrained, other = ROWS[row]
    settings = replace(DEMO, epochs=config.epochs, seed=seed, **other)
    encoder = config.encoder if pretrained else config.out / "fresh"
    return data.test(run_finetune(settings, data, encoder, config.out / "runs" / f"{row}_{seed}"))


def finetuned_real(config: Config, data: Data, row: str, seed: int) -> float:
    """One row on FER+, with the recipe of benchmarks/real_faces.py and fewer steps."""
    assert config.real is not None
    settings = replace(finetune_recipe(Real(data=Path(), epochs=config.real_epochs)), seed=seed)
    return data.test(
        run_finetune(settings, data, config.real / STARTS[row], config.out / "runs" / f"ferplus_{row}_{seed}")
    )


def probe(encoder: Path, data: Data, row: str, seed: int, most: int) -> float:
    """Class-balanced logistic regression on the frozen encoder's patch tokens: averaged, or concatenated.

    The regularisation is chosen on the validation frames.
    """
    network, store, test_store = load_encoder(encoder), FacesStore(data.faces), FacesStore(data.test_faces)
    draw = EpochDraw(data.split.train, most, seed)
    drawn = np.array([draw(0, place) for place in range(min(draw.count, 6000))])
    if draw.count > 6000:  # FER+: every picture is its own video
        places = np.random.default_rng(seed).choice(draw.count, 6000, replace=False)
        drawn = np.array([draw(0, int(place)) for place in places])
    answers = read_every_split(data.test_labels, EXPR, class_map=ClassMap(), spans=test_store.spans())
    test = join(test_store, EXPR, answers, "test", data.test_labels, [])
    whole = row == "probe_tokens"
    parts = [(store, data.split.train.rows[drawn], data.split.train.classes[drawn])]
    held = data.split.validation.spaced(most)
    parts += [(store, held.rows, held.classes), (test_store, test.rows, test.classes)]
    (x, y), (x_held, y_held), (x_test, y_test) = (
        (tokens(network, place, rows, whole=whole), classes) for place, rows, classes in parts
    )
    mean, std = x.mean(axis=0), x.std(axis=0) + 1e-6
    x, x_held, x_test = ((part - mean) / std for part in (x, x_held, x_test))
    best = (-1.0, 0.0)
    for strength in (1e-5, 1e-4, 1e-3) if whole else (1e-3, 1e-2, 1e-1):
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000).fit(x, y)
        held_counts = confusion(model.predict(x_held), y_held, len(EXPRESSIONS))
        test_counts = confusion(model.predict(x_test), y_test, len(EXPRESSIONS))
        found = (macro_f1(held_counts, present=True), macro_f1(test_counts, present=True))
        best = found if found[0] > best[0] else best
    return best[1]


@torch.inference_mode()
def tokens(encoder: Encoder, store: FacesStore, rows: np.ndarray, *, whole: bool) -> np.ndarray:
    """Patch tokens of some rows of a store: averaged `[N, D]`, or concatenated `[N, P * D]`."""
    stills = StillFrames(store, ["full"], encoder.config.image_size)
    found = []
    for batch in work_ahead(stills, 0, [part.tolist() for part in np.array_split(rows, -(-len(rows) // 256))]):
        with torch.autocast("cpu", torch.bfloat16):
            made = encoder.backbone.forward_features(encoder.normalise(batch["images"][:, 0]))
        made = made[:, encoder.backbone.num_prefix_tokens :].float()
        found.append((made.flatten(1) if whole else made.mean(dim=1)).numpy())
    return np.concatenate(found)


def fused(config: Config, row: str, seed: int) -> float:
    """A frame-by-frame head on the caches of one or two views, without smoothing."""
    name, views, other = HEADS[row]
    caches = []
    for view in views:
        run, cache = config.out / "runs" / f"{view}_{seed}", config.out / "features" / f"{view}_{seed}"
        extract(Extract(encoder=str(run), faces=config.faces, out=cache, view=(ROWS[view][1].get("view", "full"),)))
        caches.append(cache)
    place = config.out / "heads" / f"{row}_{seed}"
    settings = replace(recipe(name, "expr"), tune_on="validation", smoothing="none", seed=seed, **other)
    train(replace(settings, features=tuple(caches), labels=config.corpus / "release", out=place))
    head, opened, task = load_head(place), [FeatureCache(cache) for cache in caches], TASKS["expr"]
    total: Any = 0
    for id, track in read_annotations(config.corpus / "answers" / "expr", task).items():
        values, _ = predict_cached([head], opened, id, len(track), smooth=False)
        total = total + task.statistics(task.decode(values["expr"]), track.labels, track.mask)
    return float(task.score_statistics(total)["score"])


def spread(found: list[float]) -> float:
    """Standard deviation over the seeds; 0 for a single one."""
    return float(np.std(found, ddof=1)) if found[1:] else 0.0


def write_table(config: Config) -> dict[str, Any]:
    """Write and print the results so far: macro F1 by part and row."""
    result: dict[str, Any] = {
        "what": "macro-F1; synthwild and fusion are synthetic: single frames of SynthWild medium's test people",
        "epochs": config.epochs,
        "ferplus_epochs": config.real_epochs,
        "encoder": "1.6 M weights; 64 px in patches of 8 (SynthWild), 48 px in patches of 6 (FER+)",
    }
    for part in ("synthwild", "fusion", "ferplus"):
        scores: dict[str, list[float]] = {}
        for file in sorted((config.out / part).glob("*.json")):
            scores.setdefault(file.stem.rsplit("_", 1)[0], []).append(read_json(file)["macro_f1"])
        result[part] = {
            row: {"mean": float(np.mean(found)), "std": spread(found), "seeds": found} for row, found in scores.items()
        }
        for row, item in result[part].items():
            print(f"{part:10}{row:22}{item['mean']:.3f} +- {item['std']:.3f}  ({len(item['seeds'])} seeds)")
    write_json(config.result, result)
    return result


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))
