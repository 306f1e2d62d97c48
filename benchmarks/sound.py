"""What sound adds to faces on SynthWild with voices (synthetic numbers).

    python benchmarks/sound.py --out runs/sound

Heads of the demo's size read the features of the faces, log-mel spectra of the sound, or both (`ours-av`'s gates and
dropped caches). Epoch, smoothing and thresholds are chosen on validation videos; scores are computed on the held-out
answers of the test videos, for `both` also with the sound of a third of them removed. What is done is kept, so an
interrupted study resumes where it was.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks.seeds import over_seeds
from checkpoints.artifact import read_json, write_json
from checkpoints.errors import guarded
from features.run import main as extract
from features.settings import Extract
from preprocessing.run import Config as Preprocess
from preprocessing.run import run as preprocess
from synthwild.run import Config as SynthWild
from synthwild.run import generate
from temporal.caches import open_caches
from temporal.data import frame_rate
from temporal.heads import load_head
from temporal.predict import decode, predict_sequence
from temporal.recipes import TaskName, Temporal, recipe
from temporal.run import main as train_head
from wildaffect.tasks import TASKS
from wildaffect.tasks.labels import read_annotations

ROWS = {"vision": ("faces",), "sound": ("sound",), "both": ("faces", "sound")}
MISSING = "both, sound missing in a third"


@dataclass
class Config:
    """Run whatever part of the study is missing, and write its table."""

    out: Path = Path("runs/sound")
    """Folder of the corpus and all runs."""
    result: Path = Path("benchmarks/results/sound.json")
    """File for the table."""
    encoder: str = "checkpoints/demo"
    """Encoder of the faces."""
    size: Literal["tiny", "small", "medium"] = "small"
    """Size of the corpus."""
    seeds: int = 3
    """Number of heads per row and task."""
    epochs: float = 60
    """Passes over the windows per head."""
    tasks: tuple[Literal["va", "expr", "au"], ...] = ("va", "expr", "au")
    """Tasks to train heads for."""


def main(config: Config) -> dict[str, Any]:
    """Run everything that is missing and return the table."""
    out, release = config.out, config.out / "corpus" / "release"
    generate(out / "corpus", SynthWild(size=config.size, sound=True))
    preprocess(Preprocess(source=[str(release)], out=out / "faces_store", workers=1))
    extract(Extract(encoder=config.encoder, faces=out / "faces_store", out=out / "faces"))
    extract(Extract(audio="logmel", source=(release,), faces=out / "faces_store", out=out / "sound"))
    scores: dict[str, dict[str, list[float]]] = {}
    for task in config.tasks:
        for seed in range(config.seeds):
            for row, caches in ROWS.items():
                run = out / "heads" / f"{task}_{row}_{seed}"
                measured = run / "test.json"
                if not measured.exists():
                    features = tuple(out / name for name in caches)
                    train_head(
                        replace(settings(task, row, config), seed=seed, features=features, labels=release, out=run)
                    )
                    write_json(measured, {"all": score(config, task, run, features, every=0)})
                    if row == "both":
                        missing = score(config, task, run, features, every=3)
                        write_json(measured, {**read_json(measured), "missing": missing})
                found = read_json(measured)
                for name, key in ((row, "all"), (MISSING, "missing")):
                    if key in found:
                        scores.setdefault(name, {}).setdefault(task, []).append(found[key])
    table = {row: {task: over_seeds(v) for task, v in by_task.items()} for row, by_task in scores.items()}
    facts = {"synthetic": True, "corpus": f"SynthWild {config.size} with sound, test split", "encoder": config.encoder}
    result = {**facts, "epochs": config.epochs, "rows": table}
    write_json(config.result, result)
    for row, by_task in table.items():
        cells = [f"{task} {part['mean']:.3f}±{part['std']:.3f}" for task, part in by_task.items()]
        print(f"{row:32}" + "  ".join(cells))
    return result


def settings(task: TaskName, row: str, config: Config) -> Temporal:
    """The head of a row: the demo's, with the gates and dropped caches of `ours-av` if it has two caches."""
    small = replace(recipe("demo", task), epochs=config.epochs, save_every=10_000)
    both = recipe("ours-av", task)
    return (
        replace(small, fusion=both.fusion, fusion_width=64, cache_dropout=both.cache_dropout)
        if row == "both"
        else small
    )


def score(config: Config, task: str, run: Path, features: tuple[Path, ...], every: int) -> float:
    """Official score of a head on the test answers, without the sound of one of `every` videos (0: of none)."""
    head, caches = load_head(run), open_caches(features)
    tracks = read_annotations(config.out / "corpus" / "answers" / task, TASKS[task])
    total: Any = 0
    for number, (id, track) in enumerate(sorted(tracks.items())):
        read = [cache.read(id, len(track)) for cache in caches]
        values, valid = [item.features for item in read], [item.valid for item in read]
        if every and number % every == 0:
            values[-1], valid[-1] = np.zeros_like(values[-1]), np.zeros_like(valid[-1])
        rate = frame_rate(read[0].time_s)
        predicted = predict_sequence(head, np.concatenate(values, axis=1), np.stack(valid, axis=1), rate=rate)[task]
        total = total + TASKS[task].statistics(decode([head], task, predicted, rate), track.labels, track.mask)
    return float(TASKS[task].score_statistics(total)["score"])


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))
