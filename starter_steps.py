"""What starter.py runs: from the faces of labelled pictures to the heads of the starter weights."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import features.run
import features.settings
import finetune.recipes
import finetune.run
import preprocessing.run
import synthwild.run
import temporal.recipes
import temporal.run
from checkpoints import convert
from checkpoints.artifact import atomic_file
from checkpoints.encoder import save_encoder
from checkpoints.network import Encoder, EncoderConfig
from features.cache import FeatureCache
from finetune.labels import read_split
from preprocessing.faces import FacesStore
from pretrain.duplicates import duplicates_of, store_hashes
from starter import Starter
from starter_card import SHOWN
from starter_scores import answers, expression_head, muxspace, named, scores_of, unique_votes
from temporal.heads import load_head, read_head_header, save_head
from temporal.predict import predict_cached
from wildaffect.tasks import AUS
from wildaffect.tasks.derived import derive
from wildaffect.tasks.priors import tempered, under_prior

ENCODER = EncoderConfig("resnet18", 64, kwargs={"channels": [48, 96, 192, 320], "in_chans": 1}, pooling="model")
LIGHT = {"mixup": 0.0, "blur": 0.2, "erasing": 0.1, "framing_jitter": 0.06, "crop_scale": (0.8, 1.0), "lr": 8e-4}
"""How the second pass of stage 2 differs from the first."""
LIGHT_EPOCHS = 16
UNITS = LIGHT | {"lr": 5e-4}
"""How the third pass, which learns action units beside the votes, differs from the first."""
UNIT_EPOCHS = 5
TEMPERS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
CHOSEN_BY = ("accuracy", "macro_f1", "balanced_accuracy")


def save_untrained(directory: Path, config: EncoderConfig, *, made_by: str, synthetic: bool = False) -> None:
    """Write an untrained encoder; does nothing if there is one."""
    if not (directory / "config.json").exists():
        torch.manual_seed(0)
        encoder = Encoder(config, provenance={"stage": "none", "synthetic": synthetic})
        save_encoder(directory, encoder, made_by=made_by, recipe={}, parents={})


def find_faces(config: Starter) -> None:
    """Make a faces store of each data set, aligned alike."""
    sources = {
        "ferplus": [config.data / "ferplus" / f"{split}.parquet" for split in ("train", "validation")],
        "muxspace": [config.data / "muxspace"],
        "london": [config.data / "london"],
    }
    for name, paths in sources.items():
        settings = preprocessing.run.Config(
            [str(path) for path in paths], config.out / "faces" / name, framing="arcface", workers=config.workers
        )
        preprocessing.run.run(settings)
    if config.model is not None:
        stills = config.out / "stills"
        render = synthwild.run.Config(
            stills, workers=config.workers, faces="rendered", model=config.model, stills=config.stills
        )
        synthwild.run.generate(stills, render)
        crops = preprocessing.run.Config([str(stills)], config.out / "faces" / "stills", crops=True, framing="arcface")
        preprocessing.run.run(crops)


def write_labels(config: Starter) -> None:
    """Write the votes with what is derived from them.

    `train.parquet` is for stage 2, which holds a tenth out. `labels.parquet` is for stage 3 and has `validation` too,
    which is only scored. Left out: training faces that were not found, or are near-duplicates of a validation face.
    """
    store = FacesStore(config.out / "faces" / "ferplus")
    hashes, rows = store_hashes(store), {sequence.id: sequence.start for sequence in store.sequences()}
    table = pd.read_parquet(store.path / "labels.parquet")
    place = table["video"].map(rows).to_numpy()
    train = (table["split"] == "train").to_numpy()
    twice = duplicates_of(hashes[place[~train]], hashes[place])
    names = [name for name in table.columns if name not in ("video", "frame", "split", "name")]
    table[["valence", "arousal"]] = derive(table[names].to_numpy(float), names)
    kept = table[~train | (store.valid[place] & ~twice)]
    print(f"{int((train & twice).sum())} training faces are near-duplicates of a validation face: left out")
    for name, part in (("labels", kept), ("train", kept[kept["split"] == "train"])):
        with atomic_file(config.out / f"{name}.parquet") as temporary:
            part.to_parquet(temporary, index=False)


def train_encoder(config: Starter) -> None:
    """Stage 2 in two or three passes, from an untrained network; the result in half precision."""
    out = config.out
    save_untrained(out / "untrained", ENCODER, made_by="starter.py")
    recipe = replace(
        finetune.recipes.RECIPES["starter"][1], faces=out / "faces" / "ferplus", labels=out / "train.parquet"
    )
    first = replace(recipe, encoder=str(out / "untrained"), out=out / "finetune", epochs=config.epochs)
    finetune.run.main(first)
    share = config.epochs / recipe.epochs
    light: Any = LIGHT | {"epochs": LIGHT_EPOCHS * share, "evaluations": LIGHT_EPOCHS}
    finetune.run.main(replace(recipe, encoder=str(out / "finetune"), out=out / "finetune_light", **light))
    last = out / "finetune_light"
    if config.model is not None:
        stills = out / "faces" / "stills"
        units: Any = UNITS | {"epochs": UNIT_EPOCHS * share, "evaluations": UNIT_EPOCHS}
        units |= {"au_faces": stills, "au_labels": stills / "labels.parquet"}
        finetune.run.main(replace(recipe, encoder=str(last), out=out / "finetune_units", **units))
        last = out / "finetune_units"
    if not (out / "encoder" / "config.json").exists():
        convert.main(convert.Convert(str(last), out / "encoder", half=True))


def extract(config: Starter) -> None:
    """Features of all stores, averaged over each face and its mirror image."""
    for store in sorted((config.out / "faces").iterdir()):
        features.run.main(
            features.settings.Extract(
                encoder=str(config.out / "encoder"), faces=store, out=config.out / "features" / store.name, flip=True
            )
        )


def train_heads(config: Starter) -> dict[str, float]:
    """Frame-wise heads for VA and Expr. The held-out tenth and muxspace's `train` choose the prior that Expr states.

    Returns:
        Mean of the scores `CHOSEN_BY` over the two sets, by `temper_prior`.
    """
    out = config.out
    for task, name, labels_are in (("va", "va", "derived"), ("expr", "as_trained", "real")):
        run_head(config, task, name, labels_are=labels_are)
    head, prior = expression_head(out / "as_trained")
    split = read_split(FacesStore(out / "faces" / "ferplus"), out / "train.parquet")
    sets = [
        (*answers(head, out / "features" / name, truth), np.array([*truth.values()]))
        for name, truth in (
            ("ferplus", unique_votes(out / "train.parquet", set(split.validation.ids))),
            ("muxspace", muxspace(config.data, "train")),
        )
    ]
    tried = {}
    for tau in TEMPERS:
        wanted = tempered(prior, tau)
        parts = [scores_of(named(under_prior(values, prior, wanted), found), truth) for values, found, truth in sets]
        # Balanced accuracy too: in somebody else's pictures other expressions may be common.
        known = [part[key] for part in parts for key in CHOSEN_BY if part[key] is not None]
        tried[f"{tau:g}"] = float(np.mean(known))
    run_head(config, "expr", "expr", temper_prior=float(max(tried, key=lambda tau: tried[tau])))
    if config.model is not None:
        withheld = tuple(name for name in AUS if name not in SHOWN)
        labels = out / "faces" / "stills" / "labels.parquet"
        run_head(config, "au", "au_rendered", store="stills", labels_path=labels, withheld=withheld)
        faces = pd.read_parquet(out / "train.parquet")["video"]
        calibrate(out / "au_rendered", out / "au", out / "features" / "ferplus", faces)
    return tried


def run_head(
    config: Starter, task: Any, name: str, *, store: str = "ferplus", labels_path: Path | None = None, **settings: Any
) -> None:
    """Stage 3 with the recipe `stills` on the features of one store."""
    recipe = replace(temporal.recipes.recipe("stills", task), **settings)
    temporal.run.main(
        replace(
            recipe,
            features=(config.out / "features" / store,),
            labels=labels_path or config.out / "labels.parquet",
            out=config.out / name,
        )
    )


def calibrate(run: Path, out: Path, features_of: Path, ids: Iterable[str]) -> None:
    """Copy a head for action units with thresholds that find each in its share of unlabelled real faces.

    Its scores were measured with other thresholds, so the copy has none.
    """
    head, cache = load_head(run), FeatureCache(features_of)
    read = [predict_cached([head], [cache], id, smooth=False)[0]["au"] for id in ids if id in cache]
    found = np.concatenate(read)
    shares = [1 - SHOWN.get(name, 0.5) for name in AUS]
    head.thresholds = np.array([np.quantile(found[:, number], share) for number, share in enumerate(shares)])
    head.record |= {"faces": "rendered", "held_out": None, "validation": None, "scored_on": []}
    header = read_head_header(run / "head")
    (out / "head").mkdir(parents=True, exist_ok=True)
    save_head(head, out / "head", made_by="starter.py", config=header["config"], parents=header["parents"])
