"""Real faces through stages 1 and 2: at most 45 minutes on two cores.

A small masked autoencoder learns from the faces of FER+, muxspace and London without labels. Then the same network is
fine-tuned twice on the FER+ raters' votes: from those weights, and from scratch. Both are scored on FER+ `validation`
and muxspace `val`, which no stage saw. To resume an interrupted run, give the same command again.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import finetune.recipes
import finetune.run
import preprocessing.run
import pretrain.recipes
import pretrain.run
import starter_scores
import starter_steps
from checkpoints.artifact import atomic_file, write_json
from checkpoints.encoder import load_encoder
from checkpoints.errors import guarded
from demo import Stages
from finetune.evaluate import Evaluate
from finetune.evaluate import main as score
from finetune.recipes import Finetune
from preprocessing.faces import FacesStore
from pretrain.duplicates import duplicates_of, store_hashes
from pretrain.recipes import Pretrain
from wildaffect.report import figures
from wildaffect.report.formats import duration
from wildaffect.report.page import Figure, Section, Table, write_page
from wildaffect.tasks import EXPRESSIONS

UNLABELLED = ("ferplus", "muxspace", "london")  # stores of stage 1; stage 2 trains on the first
STARTS = {"mae": "pretrain/encoder", "scratch": "scratch"}
TESTS = {"ferplus_validation": "FER+ validation", "muxspace_val": "muxspace val"}
BASELINES = {"ferplus_validation": (0.459, 0.544), "muxspace_val": (0.328, 0.615)}
BASELINE = "HOG + logistic regression"


@dataclass(frozen=True)
class Real:
    """Pretrain and fine-tune on real faces, with and without stage 1."""

    data: Path
    """Folder with `ferplus/{train,validation}.parquet`, `muxspace/`, `london/` and `manifest.csv`."""
    out: Path = Path("runs/real")
    """Folder for all results."""
    workers: int = 2
    """Number of processes for face detection."""
    pretrain_steps: int = 5000
    """Steps of stage 1, each with 128 pictures."""
    epochs: float = 4.0
    """Epochs of fine-tuning on the training split of FER+."""


MINUTES = {
    "preprocess": 2,
    "pretrain": 16,
    **{f"finetune from {start}": 10 for start in STARTS},
    "evaluate": 1,
    "compare": 0.5,
}
"""The stages, and about how long each takes on two cores."""


def main(config: Real) -> dict[str, Any]:
    """Run all stages and return the summary.

    Raises:
        UserError: The folder lacks one of the data sets.
    """
    starter_scores.check_data(config.data)
    stages = Stages(config.out, MINUTES)
    stages.run("preprocess", lambda: preprocess(config))
    stages.run("pretrain", lambda: stage_1(config))
    save_untrained(config.out / "scratch", config.out / "pretrain", made_by="real.py")
    runs = {start: stages.run(f"finetune from {start}", partial(stage_2, config, start)) for start in STARTS}
    scores = stages.run("evaluate", lambda: {test: evaluate(config, test) for test in TESTS})
    compared = stages.run("compare", lambda: near_duplicates(config))
    summary = {
        "stages": {name: {"seconds": round(seconds, 1)} for name, seconds in stages.seconds.items()},
        "held_out_tenth_of_training": {start: run["macro_f1"] for start, run in runs.items()},
        "scores": scores,
        "pictures_trained_on": compared,
        "baselines": {test: dict(zip(("macro_f1", "accuracy"), BASELINES[test], strict=True)) for test in TESTS},
    }
    write_report(config, summary)
    write_json(config.out / "summary.json", summary)
    print_table(summary)
    return summary


def save_untrained(directory: Path, like: str | Path, *, made_by: str) -> None:
    """Write an untrained encoder of the same form as another, as a baseline; does nothing if it exists."""
    parent = load_encoder(like)
    synthetic = bool(parent.provenance.get("synthetic"))
    starter_steps.save_untrained(directory, parent.config, made_by=made_by, synthetic=synthetic)


def preprocess(config: Real) -> None:
    """Make the faces stores, and a table of labels for muxspace (FER+ has its own)."""
    data = config.data
    rows = starter_scores.manifest(data, "muxspace")
    sources = {
        "ferplus": [data / "ferplus" / "train.parquet"],
        "ferplus_validation": [data / "ferplus" / "validation.parquet"],
        "muxspace": [data / row["path"] for row in rows if row["split"] == "train"],
        "muxspace_val": [data / row["path"] for row in rows if row["split"] == "val"],
        "london": [data / "london"],
    }
    for name, paths in sources.items():
        # All pictures except London's portraits are already cropped to the face.
        crops, out = name != "london", config.out / "faces" / name
        settings = preprocessing.run.Config([str(path) for path in paths], out, crops=crops, workers=config.workers)
        preprocessing.run.run(settings)
    lines = ["video,label", *(f"{Path(row['path']).stem},{row['label']}" for row in rows)]
    with atomic_file(config.out / "muxspace.csv") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def pretrain_recipe(config: Real) -> Pretrain:
    """Stage 1 at FER+'s own resolution."""
    faces = tuple(config.out / "faces" / name for name in UNLABELLED)
    small = replace(pretrain.recipes.DEMO, image_size=48, patch_size=6, steps=config.pretrain_steps, workers=1)
    return replace(small, faces=faces, out=config.out / "pretrain")


def finetune_recipe(config: Real) -> Finetune:
    """Stage 2: every picture is its own video, so a tenth of the pictures is held out."""
    return replace(
        finetune.recipes.DEMO,
        faces=config.out / "faces" / "ferplus",
        labels=config.out / "faces" / "ferplus" / "labels.parquet",
        epochs=config.epochs,
        batch_size=64,
        lr=1e-3,
        layer_decay=0.9,
        # With few epochs over many people there is little overfitting, and votes are already soft.
        label_smoothing=0.0,
        dropout=0.2,
        erasing=0.0,
        save_every=200,
    )


def stage_1(config: Real) -> dict[str, Any]:
    """Stage 1."""
    return pretrain.run.main(pretrain_recipe(config))


def stage_2(config: Real, start: str) -> dict[str, Any]:
    """Stage 2 from one of the starts."""
    recipe = finetune_recipe(config)
    return finetune.run.main(
        replace(recipe, encoder=str(config.out / STARTS[start]), out=config.out / f"finetune_{start}")
    )


def evaluate(config: Real, test: str) -> dict[str, Any]:
    """Score both runs on one test set."""
    faces = config.out / "faces" / test
    labels = config.out / "muxspace.csv" if test == "muxspace_val" else faces / "labels.parquet"
    return {
        start: score(Evaluate(run=config.out / f"finetune_{start}", faces=faces, labels=labels, split="all"))
        for start in STARTS
    }


def near_duplicates(config: Real) -> dict[str, int]:
    """Pictures of each test set that are also in a training set, by perceptual hash; FER+'s own splits share some."""
    hashes = {name: store_hashes(FacesStore(config.out / "faces" / name)) for name in (*UNLABELLED, *TESTS)}
    trained = np.concatenate([hashes[name] for name in UNLABELLED])
    return {test: int(duplicates_of(trained, hashes[test]).sum()) for test in TESTS}


def print_table(summary: dict[str, Any]) -> None:
    """Print what the report's first table shows."""
    print(f"\n{'test':18}{'start':>28}{'macro F1':>10}{'accuracy':>10}  classes")
    for test, start, macro_f1, accuracy, classes in _rows(summary):
        print(f"{test:18}{start:>28}{macro_f1:10.3f}{accuracy:10.3f}  {classes}")
    total = sum(stage["seconds"] for stage in summary["stages"].values())
    print(f"{duration(total)} in all")


def _rows(summary: dict[str, Any]) -> list[tuple[str, str, float, float, str]]:
    rows = []
    for test, title in TESTS.items():
        for start, name in (("mae", "fine-tuned from stage 1"), ("scratch", "fine-tuned from nothing")):
            scores = summary["scores"][test][start]
            rows.append((title, name, scores["macro_f1"], scores["accuracy"], ", ".join(scores["classes"])))
        rows.append((title, BASELINE, *BASELINES[test], "as given with the data"))
    return rows


def write_report(config: Real, summary: dict[str, Any]) -> None:
    """Write `report.html`."""
    table = Table(["test", "start", "macro F1", "accuracy", "classes scored"], _rows(summary))
    remark = (
        "Macro F1 is over the classes that occur among the test labels. They are not Aff-Wild2's eight classes: in "
        "FER+ and muxspace, Other contains only contempt. The four pictures of contempt and the one of fear in "
        "muxspace count as much as hundreds of pictures of another class."
    )
    twice = ", ".join(f"{summary['pictures_trained_on'][test]} of {title}" for test, title in TESTS.items())
    remark += f" Near-duplicates (by perceptual hash) of training pictures are included in the scores: {twice}."
    sections = [Section("Scores", [table, remark])]
    for test, title in TESTS.items():
        blocks = [
            Figure(
                figures.confusion_matrix(np.array(summary["scores"][test][start]["confusion"]), EXPRESSIONS),
                f"Confusion matrix, fine-tuned from {start}",
                width=560,
            )
            for start in STARTS
        ]
        sections.append(Section(title, blocks))
    seconds = [[name, duration(stage["seconds"])] for name, stage in summary["stages"].items()]
    sections.append(Section("Time", [Table(["stage", "time"], seconds)]))
    write_page(config.out / "report.html", "Stages 1 and 2 on real faces", sections)


def command_line() -> None:
    """Read the command line and run."""
    main(tyro.cli(Real, description=__doc__))


if __name__ == "__main__":
    guarded(command_line)
