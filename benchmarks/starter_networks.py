"""Which network for the starter weights? A small ViT after stage 1, the same from nothing, and the ResNet that ships.

    python -m benchmarks.starter_networks --starter runs/starter --data FOLDER --out runs/networks

Stage 1 reads the faces of FER+ `train`, muxspace `train` and UTKFace without labels, in the framing that `predict`
gives. London's portraits stay out: some of their people are held back. Then each network learns from the raters' votes
with the recipe of the starter weights; a tenth of FER+ `train` chooses the step. FER+ `validation` and muxspace `val`
are only scored. To resume an interrupted run, give the same command again.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

import finetune.run
import preprocessing.run
import pretrain.recipes
import pretrain.run
import starter_steps
from benchmarks.real_faces import save_untrained
from benchmarks.seeds import over_seeds
from checkpoints.artifact import read_json, write_json
from checkpoints.errors import guarded
from finetune.evaluate import Evaluate
from finetune.evaluate import main as score
from finetune.recipes import RECIPES, Finetune
from preprocessing.faces import FacesStore
from pretrain.duplicates import duplicates_of, store_hashes
from starter_scores import muxspace, unique_votes
from wildaffect.tasks import EXPRESSIONS

NETWORKS = ("vit_stage_1", "vit_scratch", "resnet_scratch")
SCORES = ("accuracy", "macro_f1")


@dataclass(frozen=True)
class Networks:
    """Train each network with several seeds and score it."""

    data: Path
    """Folder of real faces, as for starter.py, with `utkface/train.parquet`."""
    starter: Path = Path("runs/starter")
    """Where starter.py worked: its faces stores and `labels.parquet` are read."""
    out: Path = Path("runs/networks")
    """Folder for all results."""
    result: Path | None = None
    """Where to record the scores as JSON."""
    steps: int = 2000
    """Steps of stage 1, each with 128 faces."""
    epochs: float = 3.0
    """Passes of stage 2."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of stage 2."""
    only: tuple[str, ...] = NETWORKS
    """Networks to train."""


def main(config: Networks) -> dict[str, Any]:
    """Run whatever is missing and return the scores."""
    config.out.mkdir(parents=True, exist_ok=True)
    tests = write_tests(config)
    if "vit_stage_1" in config.only:
        stage_1(config)
    scores: dict[str, dict[str, dict[str, list[float]]]] = {}
    for network in config.only:
        for seed in config.seeds:
            for test, found in run_scores(config, network, seed, tests).items():
                for key in SCORES:
                    scores.setdefault(network, {}).setdefault(test, {}).setdefault(key, []).append(found[key])
    result = {
        "stage_1_steps": config.steps,
        "epochs": config.epochs,
        "seeds": config.seeds,
        "scores": {
            network: {test: {key: over_seeds(v) for key, v in by_key.items()} for test, by_key in by_test.items()}
            for network, by_test in scores.items()
        },
    }
    if config.result is not None:
        write_json(config.result, result)
    for network, by_test in scores.items():
        for test, by_key in by_test.items():
            parts = ", ".join(f"{key} {np.mean(v):.3f}+-{np.std(v):.3f}" for key, v in by_key.items())
            print(f"{network:16}{test:20}{parts}")
    return result


def write_tests(config: Networks) -> dict[str, tuple[Path, Path]]:
    """Write one list of labels per test set.

    Returns:
        By name, the faces store and the list.
    """
    sets = {
        "ferplus_validation": ("ferplus", unique_votes(config.starter / "labels.parquet", split="validation")),
        "muxspace_val": ("muxspace", muxspace(config.data, "val")),
    }
    found = {}
    for name, (store, classes) in sets.items():
        path = config.out / f"{name}.csv"
        rows = [(id, EXPRESSIONS[number]) for id, number in classes.items()]
        pd.DataFrame(rows, columns=["video", "label"]).to_csv(path, index=False)
        found[name] = (config.starter / "faces" / store, path)
    return found


def stage_1(config: Networks) -> None:
    """Stage 1 on all faces but FER+ `validation`, muxspace `val` and near-duplicates of them."""
    utkface = config.out / "utkface"
    tables = [str(config.data / "utkface" / "train.parquet")]
    preprocessing.run.run(preprocessing.run.Config(tables, utkface, framing="arcface", workers=1))
    paths = [config.starter / "faces" / "ferplus", config.starter / "faces" / "muxspace", utkface]
    stores = [FacesStore(path) for path in paths]
    votes = pd.read_parquet(config.starter / "labels.parquet")
    held = (set(votes["video"][votes["split"] == "validation"]), set(muxspace(config.data, "val")))
    kept_out = set().union(*held)
    for tested, ids in zip(stores, held, strict=False):  # UTKFace has no test set
        hashes = store_hashes(tested)
        hashes = hashes[[part.start for part in tested.sequences() if part.id in ids]]  # each is one picture
        for store in stores:
            twice = duplicates_of(hashes, store_hashes(store))
            kept_out |= {part.id for part in store.sequences() if twice[part.start]}
    listed = config.out / "kept_out.txt"
    listed.write_text("\n".join(sorted(kept_out)) + "\n", encoding="utf-8")
    recipe = replace(pretrain.recipes.DEMO, faces=tuple(paths), exclude=listed, steps=config.steps)
    pretrain.run.main(replace(recipe, out=config.out / "stage_1"))


def start_of(config: Networks, network: str) -> Path:
    """The encoder that stage 2 starts from."""
    if network == "vit_stage_1":
        return config.out / "stage_1"
    untrained = config.out / network
    if network == "vit_scratch":
        save_untrained(untrained, config.out / "stage_1", made_by="starter_networks.py")
    else:
        starter_steps.save_untrained(untrained, starter_steps.ENCODER, made_by="starter_networks.py")
    return untrained


def recipe_of(config: Networks, network: str, seed: int) -> Finetune:
    """The recipe of the starter weights; tokens are pooled as in the demo, and the ViT has its rate.

    The moving average spans the same share of a run of any length.
    """
    recipe = RECIPES["starter"][1]
    settings = replace(
        recipe,
        faces=config.starter / "faces" / "ferplus",
        labels=config.starter / "train.parquet",
        epochs=config.epochs,
        ema_decay=max(0.0, 1 - (1 - recipe.ema_decay) * recipe.epochs / config.epochs),
        evaluations=max(2, round(config.epochs)),
        seed=seed,
    )
    if network.startswith("vit"):
        settings = replace(settings, pooling="grid", lr=1e-3, layer_decay=0.9)
    return settings


def run_scores(config: Networks, network: str, seed: int, tests: dict[str, tuple[Path, Path]]) -> dict[str, Any]:
    """Stage 2 of one network with one seed, and its scores on each test set."""
    run = config.out / f"{network}_{seed}"
    if not (run / "scores.json").exists():
        trained = finetune.run.main(
            replace(recipe_of(config, network, seed), encoder=str(start_of(config, network)), out=run)
        )
        scores = {
            name: score(Evaluate(run=run, faces=store, labels=labels, split="all", workers=0))
            for name, (store, labels) in tests.items()
        }
        write_json(run / "scores.json", {"held_out_tenth": trained, **scores})
    return dict(read_json(run / "scores.json"))


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Networks, description=__doc__)))
