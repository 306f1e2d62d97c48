"""What it costs to frame faces differently than in training, on SynthWild (synthetic numbers).

    python benchmarks/framing.py --out runs/framing

A head per task is trained on features of the release's ready crops. The same test videos are then scored with features
of these crops, of faces that were aligned in the crops' framing (`right`), and of faces in wildaffect's own (`wrong`).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from checkpoints.artifact import write_json
from checkpoints.errors import guarded
from features.cache import FeatureCache
from features.run import Extract
from features.run import main as extract
from preprocessing.faces import FacesStore
from preprocessing.run import Config as Preprocess
from preprocessing.run import run as preprocess
from synthwild.run import Config as SynthWild
from synthwild.run import generate
from temporal.data import frame_rate
from temporal.heads import Head, load_head
from temporal.predict import decode, predict_sequence
from temporal.recipes import recipe
from temporal.run import main as train_head
from wildaffect.tasks import TASKS
from wildaffect.tasks.labels import read_annotations

TASK_NAMES: tuple[Literal["va", "expr", "au"], ...] = ("va", "expr", "au")


@dataclass
class Config:
    """Run whatever part of the comparison is missing."""

    out: Path = Path("runs/framing")
    """Folder of all runs."""
    result: Path = Path("benchmarks/results/framing.json")
    """File for the numbers."""
    encoder: Path = Path("checkpoints/demo")
    """Encoder of the features."""
    size: Literal["tiny", "small", "medium"] = "small"
    """Size of the corpus."""
    recipe: str = "demo"
    """Recipe of the heads."""
    workers: int = 1
    """Processes for drawing and preprocessing."""


def main(config: Config) -> None:
    """Run everything that is missing, then print and write the scores."""
    out, corpus = config.out, config.out / "corpus"
    generate(corpus, SynthWild(size=config.size, workers=config.workers))
    result = {}
    stores = {"crops": "auto", "right": str(out / "crops"), "wrong": "wildaffect"}
    for name, framing in stores.items():
        preprocess(
            Preprocess(
                source=[str(corpus / "release")],
                out=out / name,
                crops=name == "crops",
                framing=framing,
                workers=config.workers,
            )
        )
        extract(Extract(encoder=str(config.encoder), faces=out / name, out=out / "features" / name))
    for task in TASK_NAMES:
        run = out / task
        settings = replace(recipe(config.recipe, task), tune_on="validation", out=run, labels=corpus / "release")
        train_head(replace(settings, features=(out / "features" / "crops",)))
        head = load_head(run)
        answers = corpus / "answers" / task
        result[task] = {name: round(score(head, out / "features" / name, answers), 4) for name in stores}
        print(task, result[task])
    framings = {name: FacesStore(out / name).framing.name for name in stores}
    facts = {"size": config.size, "recipe": config.recipe, "framings": framings}
    write_json(config.result, facts | {"test_score": result})


def score(head: Head, features: Path, answers: Path) -> float:
    """Official score of a head on all test videos, whatever the framing of the features."""
    (task,), cache = head.tasks, FeatureCache(features)
    total = None
    for id, track in read_annotations(answers, TASKS[task.name]).items():
        read = cache.read(id, len(track))
        rate = frame_rate(read.time_s)
        values = predict_sequence(head, read.features, read.valid, rate=rate)[task.name]
        statistics = task.statistics(decode([head], task.name, values, rate), track.labels, track.mask)
        total = statistics if total is None else total + statistics
    assert total is not None, "the corpus has no test answers"
    return float(task.score_statistics(total)["score"])


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))
