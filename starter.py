"""The starter weights from labelled faces: `make starter DATA=FOLDER`, about two hours on two cores.

Runs the stage commands one after another: faces in ArcFace's framing; stage 2 from an untrained network on raters'
votes, first with strong and then with light augmentation; features; heads for expressions and for valence and arousal
derived from the votes; the bundle; scores on faces that taught and chose nothing. With a face model, stage 2 ends on
the votes together with action units of rendered faces, and a head for action units is trained on these. To resume, give
the same command again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import tyro
from scipy.stats import mannwhitneyu

import features.run
import features.settings
import finetune.recipes
import finetune.run
import preprocessing.run
import synthwild.run
import temporal.recipes
import temporal.run
from checkpoints import convert
from checkpoints.artifact import atomic_file, write_json
from checkpoints.encoder import Encoder, EncoderConfig, save_encoder
from checkpoints.errors import UserError, guarded
from checkpoints.lock import sole_writer
from checkpoints.ranges import check_ranges
from checkpoints.reading import read_csv
from demo import Stages
from features.cache import FeatureCache
from finetune.labels import read_split
from preprocessing.faces import FacesStore
from pretrain.duplicates import duplicates_of, store_hashes
from temporal.heads import Head, load_head, read_head_header, save_head
from temporal.predict import predict_cached
from wildaffect.inference.bundle import write_bundle
from wildaffect.tasks import AUS, EXPRESSIONS
from wildaffect.tasks.derived import derive
from wildaffect.tasks.priors import tempered, under_prior

ENCODER = EncoderConfig("resnet18", 64, kwargs={"channels": [48, 96, 192, 320], "in_chans": 1}, pooling="model")
LIGHT = {"mixup": 0.0, "blur": 0.2, "erasing": 0.1, "framing_jitter": 0.06, "crop_scale": (0.8, 1.0), "lr": 8e-4}
"""What the second pass of stage 2 does otherwise than the first."""
LIGHT_EPOCHS = 16
UNITS = LIGHT | {"lr": 5e-4}
"""What the third pass does otherwise, which learns action units beside the votes."""
UNIT_EPOCHS = 5
STILLS = 12_000
"""Number of rendered pictures."""
SHOWN = {"AU1": 0.15, "AU4": 0.2, "AU10": 0.12, "AU12": 0.3, "AU25": 0.5, "AU26": 0.17}
"""The action units that are reported: at least 20 hand-labelled real faces show them, and the head tells them apart
(benchmarks/action_units.py). The numbers are the shares of FER+'s training faces that are taken to show them, which set
the thresholds."""
VOTES = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise", "contempt")
"""Columns of FER+ in the order of `EXPRESSIONS`: contempt is in Other, of which nothing else is known."""
TEMPERS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
CHOSEN_BY = ("accuracy", "macro_f1", "balanced_accuracy")
DRAWS = 1000
"""Bootstrap draws of an interval."""
LICENCES = (
    "FER+ train: votes MIT (Barsoum et al. 2016), pixels of FER2013 without a formal licence, for research. The "
    "weights are therefore for research.",
    "Contempt counts as Other, and Other is learnt from nothing else: other kinds of Other cannot be predicted.",
    "Valence and arousal are derived from the votes by the norms of Russell and Mehrabian (1977): no one rated them.",
    "Action units are learnt from rendered faces (ICT-FaceKit, MIT) alone: no one labelled them on a real face. Their "
    "thresholds suppose how common each is among FER+'s faces. The encoder learnt from votes too: without them the AUC "
    "on hand-labelled faces falls from .87 to .67 for AU1, from .87 to .59 for AU4, from .93 to .74 for AU10 and from "
    ".97 to .88 for AU12, and not for AU25 and AU26 (benchmarks/renders_only.py).",
)


@dataclass(frozen=True)
class Starter:
    """Train the starter weights and score them."""

    data: Path
    """Folder with `ferplus/{train,validation}.parquet`, `muxspace/`, `london/` and `manifest.csv`."""
    out: Path = Path("runs/starter")
    """Folder for all results."""
    model: Path | None = None
    """The morphable face model of synthwild/morphable.py, to learn action units from rendered faces; none: do not."""
    bundle: Path = Path("checkpoints/starter")
    """Where the bundle goes."""
    workers: int = 2
    """Number of processes for face detection."""
    epochs: float = 24.0
    """Epochs of the first pass of stage 2."""
    stills: int = STILLS
    """Number of rendered pictures."""


MINUTES = {"faces": 16, "labels": 1, "encoder": 130, "features": 8, "heads": 10, "scores": 1}
"""The stages, and about how long each takes on two cores."""


@sole_writer
def main(config: Starter) -> dict[str, Any]:
    """Run all stages and return the summary.

    Raises:
        UserError: The folder lacks one of the data sets.
    """
    check_ranges(config)
    check_data(config.data)
    stages = Stages(config.out, MINUTES)
    stages.run("faces", lambda: find_faces(config))
    stages.run("labels", lambda: write_labels(config))
    stages.run("encoder", lambda: train_encoder(config))
    stages.run("features", lambda: extract(config))
    tempers = stages.run("heads", lambda: train_heads(config))
    scores = stages.run("scores", lambda: score(config))
    summary = {
        "stages": {name: {"seconds": round(seconds, 1)} for name, seconds in stages.seconds.items()},
        "temper_prior": tempers,
        "scores": scores,
    }
    write_json(config.out / "summary.json", summary)
    if not config.bundle.exists():
        heads = [config.out / name for name in ("expr", "va", "au") if (config.out / name).exists()]
        write_bundle(heads, config.bundle, data=[*LICENCES], scores=score_lines(scores))
    for line in score_lines(scores):
        print(line)
    return summary


def check_data(folder: Path) -> None:
    """Check that a folder holds all data sets.

    Raises:
        UserError: It lacks one of them.
    """
    for name in ("ferplus", "muxspace", "london", "manifest.csv"):
        if not (folder / name).exists():
            raise UserError(f"{folder} has no {name}: expected the folders of FER+, muxspace and London")


def manifest(folder: Path, name: str) -> list[dict[str, str]]:
    """Rows of the manifest about the pictures of one data set.

    Raises:
        UserError: The manifest cannot be read, or lacks a column.
    """
    names, rows = read_csv(folder / "manifest.csv")
    if missing := [column for column in ("path", "label", "split") if column not in names]:
        raise UserError(f"{folder / 'manifest.csv'} lacks the column(s) {', '.join(missing)}")
    found = [dict(zip(names, row, strict=True)) for row in rows]
    return [row for row in found if row["path"].startswith(f"{name}/")]


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
        answers(head, out / "features" / "ferplus", unique_votes(out / "train.parquet", set(split.validation.ids))),
        answers(head, out / "features" / "muxspace", muxspace(config, "train")),
    ]
    tried = {}
    for tau in TEMPERS:
        wanted = tempered(prior, tau)
        parts = [scores_of(np.argmax(under_prior(values, prior, wanted), 1), truth) for values, truth in sets]
        # Balanced accuracy too: in somebody else's pictures other expressions may be common.
        tried[f"{tau:g}"] = float(np.mean([[part[key] for key in CHOSEN_BY] for part in parts]))
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
    """Copy a head for action units with thresholds that find each in its share of unlabelled real faces."""
    head, cache = load_head(run), FeatureCache(features_of)
    read = [predict_cached([head], [cache], id, smooth=False)[0]["au"] for id in ids if id in cache]
    found = np.concatenate(read)
    shares = [1 - SHOWN.get(name, 0.5) for name in AUS]
    head.thresholds = np.array([np.quantile(found[:, number], share) for number, share in enumerate(shares)])
    header = read_head_header(run / "head")
    (out / "head").mkdir(parents=True, exist_ok=True)
    save_head(head, out / "head", made_by="starter.py", config=header["config"], parents=header["parents"])


def expression_head(run: Path) -> tuple[Head, np.ndarray]:
    """The head of a run, and the prior that it was trained with."""
    head = load_head(run)
    if head.prior is None:
        raise UserError(f"{run} does not say which prior it was trained with: delete it and train it again")
    return head, np.array(head.prior.trained)


def unique_votes(labels: Path, ids: set[str] | None = None, split: str = "train") -> dict[str, int]:
    """Class of the faces of one split that most raters agree on; ties, `unknown` and `NF` are left out."""
    table = pd.read_parquet(labels)
    table = table[(table["split"] == split) & (True if ids is None else table["video"].isin(ids))]
    votes = table[[*VOTES, "unknown", "NF"]].to_numpy()
    top = votes.max(1)
    kept = ((votes == top[:, None]).sum(1) == 1) & (votes.argmax(1) < len(VOTES))
    return dict(zip(table["video"][kept], votes.argmax(1)[kept].tolist(), strict=True))


def muxspace(config: Starter, split: str) -> dict[str, int]:
    """Class of muxspace's faces of one split."""
    rows = [row for row in manifest(config.data, "muxspace") if row["split"] == split]
    return {Path(row["path"]).stem: VOTES.index(row["label"]) for row in rows if row["label"] in VOTES}


def answers(head: Head, features_of: Path, truth: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities `[N, 8]` and classes `[N]` of labelled faces; zeros for a face that was not found."""
    cache = FeatureCache(features_of)
    values = []
    for id in truth:
        found, read = predict_cached([head], [cache], id, smooth=False) if id in cache else ({}, None)
        seen = read is not None and bool(read.valid[0])
        values.append(found["expr"][0] if seen else np.zeros(len(EXPRESSIONS), np.float32))
    return np.array(values), np.array([*truth.values()])


def scores_of(answered: np.ndarray, truth: np.ndarray, least: int = 6) -> dict[str, Any]:
    """Accuracy, macro F1 and balanced accuracy over the classes with at least `least` faces, and F1 by class."""
    f1, recall = {}, []
    for number, name in enumerate(EXPRESSIONS):
        if (count := int((truth == number).sum())) >= least:
            hits = int(((answered == number) & (truth == number)).sum())
            f1[name] = 2 * hits / (int((answered == number).sum()) + count)
            recall.append(hits / count)
    return {
        "faces": len(truth),
        "accuracy": float((answered == truth).mean()),
        "macro_f1": float(np.mean([*f1.values()])),
        "balanced_accuracy": float(np.mean(recall)),
        "f1": f1,
    }


def with_intervals(answered: np.ndarray, truth: np.ndarray, least: int = 6) -> dict[str, Any]:
    """What :func:`scores_of` gives, with 95 % bootstrap intervals over faces."""
    scores = scores_of(answered, truth, least)
    drawn = np.random.default_rng(0).integers(len(truth), size=(DRAWS, len(truth)))
    parts = [scores_of(answered[faces], truth[faces], least) for faces in drawn]
    for key in ("accuracy", "macro_f1"):
        scores[f"{key}_95"] = np.percentile([part[key] for part in parts], [2.5, 97.5]).tolist()
    return scores


def score(config: Starter) -> dict[str, Any]:
    """Scores on faces that taught and chose nothing, with 95 % intervals over faces (over people for London)."""
    out = config.out
    head, _ = expression_head(out / "expr")
    sets = {
        "FER+ validation": (out / "features" / "ferplus", unique_votes(out / "labels.parquet", split="validation")),
        "muxspace val": (out / "features" / "muxspace", muxspace(config, "val")),
    }
    result: dict[str, Any] = {}
    for name, (cache, truth) in sets.items():
        values, classes = answers(head, cache, truth)
        found = values.sum(1) > 0
        answered = np.where(found, values.argmax(1), -1)
        result[name] = with_intervals(answered, classes) | {"found": float(found.mean())}
    result["London"] = london(config, head, load_head(out / "va"))
    return result


def london(config: Starter, expr: Head, va: Head) -> dict[str, float | None]:
    """Area under the ROC curve of smiling against neutral, by the probability of happiness and by derived valence."""
    cache = FeatureCache(config.out / "features" / "london")
    rows = manifest(config.data, "london")
    smiles = np.array([row["label"] == "happiness" for row in rows])
    result: dict[str, float | None] = {"faces": len(rows)}
    for name, head, task, column in (
        ("happiness", expr, "expr", EXPRESSIONS.index("Happiness")),
        ("valence", va, "va", 0),
    ):
        values = np.array(
            [predict_cached([head], [cache], Path(row["path"]).stem, smooth=False)[0][task][0, column] for row in rows]
        )
        result[f"auc_{name}"] = auc(values[smiles], values[~smiles])
    return result


def auc(positive: np.ndarray, negative: np.ndarray) -> float | None:
    """Area under the ROC curve: how often a positive value is above a negative one; None if either is empty."""
    if not len(positive) or not len(negative):
        return None
    return float(mannwhitneyu(positive, negative, method="asymptotic").statistic / (len(positive) * len(negative)))


def score_lines(scores: dict[str, Any]) -> list[str]:
    """The scores in words, one line per set."""
    lines = []
    for name, part in scores.items():
        if name == "London":
            lines.append(
                f"London ({part['faces']} portraits, smiling against neutral): AUC {part['auc_happiness']:.3f} by "
                f"p(Happiness), {part['auc_valence']:.3f} by derived valence"
            )
            continue
        by_class = ", ".join(f"{expression} {value:.2f}" for expression, value in part["f1"].items())
        (low, high), (lower, upper) = part["accuracy_95"], part["macro_f1_95"]
        lines.append(
            f"{name} ({part['faces']:,} faces, {part['found']:.1%} found; the others count as wrong): accuracy "
            f"{part['accuracy']:.3f} [{low:.3f}, {high:.3f}], macro F1 {part['macro_f1']:.3f} [{lower:.3f}, "
            f"{upper:.3f}]; F1: {by_class}"
        )
    return lines


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Starter, description=__doc__)))
