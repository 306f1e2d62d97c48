"""Real faces through stages 1 and 2: `make real DATA=FOLDER`, at most 45 minutes on two cores.

A small masked autoencoder learns from the faces of FER+, muxspace and London without their labels; then the same
network is fine-tuned on the raters' votes of FER+ twice, from those weights and from nothing. Both are scored on FER+
`validation` and muxspace `val`, which no stage saw. Interrupted, the same command goes on.
"""

import csv
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoints.artifact import atomic_file, write_json
from checkpoints.errors import UserError, guarded
from demo import Stages

if TYPE_CHECKING:
    from finetune.recipes import Finetune
    from pretrain.recipes import Pretrain

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
    """Where everything goes."""
    workers: int = 2
    """Processes that detect faces."""
    pretrain_steps: int = 5000
    """Steps of stage 1, of 128 pictures."""
    epochs: float = 4.0
    """Passes of fine-tuning over the training part of FER+."""


def main(config: Real) -> dict[str, Any]:
    """Go through all stages; returns the summary.

    Raises:
        UserError: The folder lacks one of the data sets.
    """
    from checkpoints.encoder import save_untrained

    for name in ("ferplus", "muxspace", "london", "manifest.csv"):
        if not (config.data / name).exists():
            raise UserError(f"{config.data} has no {name}: expected the folders of FER+, muxspace and London")
    stages = Stages(config.out)
    stages.run("preprocess", lambda: preprocess(config))
    stages.run("pretrain", lambda: pretrain(config))
    save_untrained(config.out / "scratch", config.out / "pretrain", made_by="real.py")
    runs = {start: stages.run(f"finetune from {start}", partial(finetune, config, start)) for start in STARTS}
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


def preprocess(config: Real) -> None:
    """Make the faces stores, with a table of labels for muxspace (FER+ brings its own)."""
    from preprocessing.run import Config, run

    data = config.data
    with (data / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["path"].startswith("muxspace/")]
    sources = {
        "ferplus": [data / "ferplus" / "train.parquet"],
        "ferplus_validation": [data / "ferplus" / "validation.parquet"],
        "muxspace": [data / row["path"] for row in rows if row["split"] == "train"],
        "muxspace_val": [data / row["path"] for row in rows if row["split"] == "val"],
        "london": [data / "london"],
    }
    for name, paths in sources.items():
        # All but London's portraits are cut to the face already.
        crops, out = name != "london", config.out / "faces" / name
        run(Config(source=[str(path) for path in paths], out=out, crops=crops, workers=config.workers))
    lines = ["video,label", *(f"{Path(row['path']).stem},{row['label']}" for row in rows)]
    with atomic_file(config.out / "muxspace.csv") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def pretrain_recipe(config: Real) -> "Pretrain":
    """Stage 1 at FER+'s own resolution."""
    from pretrain.recipes import DEMO

    faces = tuple(config.out / "faces" / name for name in UNLABELLED)
    small = replace(DEMO, image_size=48, patch_size=6, steps=config.pretrain_steps, workers=1)
    return replace(small, faces=faces, out=config.out / "pretrain")


def finetune_recipe(config: Real) -> "Finetune":
    """Stage 2: every picture is a video of its own, so that a tenth of the pictures is held out."""
    from finetune.recipes import DEMO

    return replace(
        DEMO,
        faces=config.out / "faces" / "ferplus",
        labels=config.out / "faces" / "ferplus" / "labels.parquet",
        epochs=config.epochs,
        batch_size=64,
        lr=1e-3,
        layer_decay=0.9,
        # Few passes over many different people need little else against learning by heart, and votes are soft already.
        label_smoothing=0.0,
        dropout=0.2,
        erasing=0.0,
        save_every=200,
    )


def pretrain(config: Real) -> dict[str, Any]:
    """Stage 1."""
    from pretrain.run import main as run

    return run(pretrain_recipe(config))


def finetune(config: Real, start: str) -> dict[str, Any]:
    """Stage 2 from one of the starts."""
    from finetune.run import main as run

    recipe = finetune_recipe(config)
    return run(replace(recipe, encoder=str(config.out / STARTS[start]), out=config.out / f"finetune_{start}"))


def evaluate(config: Real, test: str) -> dict[str, Any]:
    """Scores of both runs on one test set."""
    from finetune.evaluate import Evaluate
    from finetune.evaluate import main as score

    faces = config.out / "faces" / test
    labels = config.out / "muxspace.csv" if test == "muxspace_val" else faces / "labels.parquet"
    return {
        start: score(Evaluate(run=config.out / f"finetune_{start}", faces=faces, labels=labels, split="all"))
        for start in STARTS
    }


def near_duplicates(config: Real) -> dict[str, int]:
    """Pictures of each test set that a training set holds too, by perceptual hash: FER+'s own splits share some."""
    import numpy as np

    from preprocessing.faces import FacesStore
    from pretrain.duplicates import duplicates_of, store_hashes

    hashes = {name: store_hashes(FacesStore(config.out / "faces" / name)) for name in (*UNLABELLED, *TESTS)}
    trained = np.concatenate([hashes[name] for name in UNLABELLED])
    return {test: int(duplicates_of(trained, hashes[test]).sum()) for test in TESTS}


def print_table(summary: dict[str, Any]) -> None:
    """Print what the report's first table shows."""
    print(f"\n{'test':18}{'start':>28}{'macro F1':>10}{'accuracy':>10}  classes")
    for test, start, macro_f1, accuracy, classes in _rows(summary):
        print(f"{test:18}{start:>28}{macro_f1:10.3f}{accuracy:10.3f}  {classes}")
    total = sum(stage["seconds"] for stage in summary["stages"].values())
    print(f"{total / 60:.1f} minutes in all")


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
    import numpy as np

    from wildaffect.report import figures
    from wildaffect.report.page import Figure, Section, Table, write_page
    from wildaffect.tasks import EXPRESSIONS

    table = Table(["test", "start", "macro F1", "accuracy", "classes scored"], _rows(summary))
    remark = (
        "Macro F1 is over the classes that occur among the test labels. They are not Aff-Wild2's eight: contempt "
        "counts as Other, and FER+ and muxspace know no other Other. Four pictures of contempt and one of fear in "
        "muxspace weigh as much in it as hundreds of another class."
    )
    twice = ", ".join(f"{summary['pictures_trained_on'][test]} of {title}" for test, title in TESTS.items())
    remark += f" Near-duplicates (by perceptual hash) of training pictures are scored all the same: {twice}."
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
    seconds = [[name, stage["seconds"]] for name, stage in summary["stages"].items()]
    sections.append(Section("Time", [Table(["stage", "seconds"], seconds)]))
    write_page(config.out / "report.html", "Stages 1 and 2 on real faces", sections)


def command_line() -> None:
    """Parse the command line and run."""
    import tyro

    main(tyro.cli(Real, description=__doc__))


if __name__ == "__main__":
    guarded(command_line)
