"""The labelled real faces behind the starter weights, and how well heads name what is on them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy.stats import mannwhitneyu

from checkpoints.errors import UserError
from checkpoints.reading import read_csv
from features.cache import FeatureCache
from temporal.heads import Head, load_head
from temporal.predict import predict_cached
from wildaffect.tasks import EXPRESSIONS, TASKS
from wildaffect.tasks.metrics import confusion, f1_from_confusion

VOTES = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise", "contempt")
"""Columns of FER+ in the order of `EXPRESSIONS`: contempt is in Other, of which nothing else is known."""
COUNTED = (*VOTES, "unknown", "NF")
"""All columns of votes."""
LEAST = 6
"""Faces that a class needs for a score of its own."""
DRAWS = 1000
"""Bootstrap draws of an interval."""


def check_data(folder: Path) -> None:
    """Check that a folder holds all data sets.

    Raises:
        UserError: It lacks one of them.
    """
    for name in ("ferplus", "muxspace", "london", "manifest.csv"):
        if not (folder / name).exists():
            raise UserError(f"{folder} has no {name}: expected the folders of FER+, muxspace and London")


def check_labels(folder: Path) -> None:
    """Check that the data sets have the labels that choose and score the weights.

    Raises:
        UserError: FER+ lacks a part, a column or faces with a class; or the manifest has no picture of a kind.
    """
    for split in ("train", "validation"):
        path = folder / "ferplus" / f"{split}.parquet"
        if not path.is_file():
            raise UserError(f"{folder / 'ferplus'} has no {path.name}")
        if missing := {"image", *COUNTED} - {*pq.read_schema(path).names}:
            raise UserError(f"{path} lacks the column(s) {', '.join(sorted(missing))}")
        if not (winners(pd.read_parquet(path, columns=[*COUNTED])) >= 0).any():
            raise UserError(f"{path}: no face has a class that most raters agree on")
    for split in ("train", "val"):
        if not muxspace(folder, split):
            raise UserError(f"{folder / 'manifest.csv'} labels no picture of muxspace of split {split}")
    labels = [row["label"] for row in manifest(folder, "london")]
    for label in ("happiness", "neutral"):
        if label not in labels:
            raise UserError(f"{folder / 'manifest.csv'} labels no picture of london as {label}")


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


def expression_head(run: Path) -> tuple[Head, np.ndarray]:
    """The head of a run, and the prior that it was trained with."""
    head = load_head(run)
    if head.prior is None:
        raise UserError(f"{run} does not say which prior it was trained with: delete it and train it again")
    return head, np.array(head.prior.trained)


def winners(table: pd.DataFrame) -> np.ndarray:
    """Class `[N]` of the faces of a table of votes that most raters agree on; -1 for ties, `unknown` and `NF`."""
    votes = table[[*COUNTED]].to_numpy()
    first, top = votes.argmax(1), votes.max(1)
    alone = (votes == top[:, None]).sum(1) == 1
    return np.where(alone & (first < len(VOTES)), first, -1)


def unique_votes(labels: Path, ids: set[str] | None = None, split: str = "train") -> dict[str, int]:
    """Class of the faces of one split that most raters agree on; the others are left out."""
    table = pd.read_parquet(labels)
    table = table[(table["split"] == split) & (True if ids is None else table["video"].isin(ids))]
    classes = winners(table)
    return dict(zip(table["video"][classes >= 0], classes[classes >= 0].tolist(), strict=True))


def muxspace(data: Path, split: str) -> dict[str, int]:
    """Class of muxspace's faces of one split."""
    rows = [row for row in manifest(data, "muxspace") if row["split"] == split]
    return {Path(row["path"]).stem: VOTES.index(row["label"]) for row in rows if row["label"] in VOTES}


def answers(head: Head, features_of: Path, ids: Iterable[str], task: str = "expr") -> tuple[np.ndarray, np.ndarray]:
    """Values `[N, C]` of faces, zeros for one that was not found, and which were found `[N]`."""
    cache, values = FeatureCache(features_of), []
    for id in ids:
        answer, read = predict_cached([head], [cache], id, smooth=False) if id in cache else ({}, None)
        values.append(answer[task][0] if read is not None and read.valid[0] else None)
    missing = np.zeros(TASKS[task].out_dim, np.float32)
    found = [value is not None for value in values]
    return np.array([missing if value is None else value for value in values]), np.array(found)


def named(values: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The most probable class `[N]`; -1 for a face that was not found."""
    return np.where(found, values.argmax(1), -1)


def counts_of(answered: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Confusion matrix `[9, 9]` of classes; the last column counts the faces that were not found."""
    classes = len(EXPRESSIONS)
    return confusion(np.where(answered < 0, classes, answered), truth, classes + 1)


def scores_of(answered: np.ndarray, truth: np.ndarray, least: int = LEAST) -> dict[str, Any]:
    """Accuracy, macro F1 and balanced accuracy over the classes with at least `least` faces, and F1 by class.

    Where no class has so many, the means over classes are None.
    """
    counts = counts_of(answered, truth)
    seen = counts.sum(axis=1)
    scored = np.flatnonzero(seen >= least).tolist()
    f1 = f1_from_confusion(counts)[scored]
    recall = counts[scored, scored] / seen[scored]
    return {
        "faces": len(truth),
        "accuracy": float((answered == truth).mean()),
        "macro_f1": float(f1.mean()) if scored else None,
        "balanced_accuracy": float(recall.mean()) if scored else None,
        "f1": {EXPRESSIONS[number]: float(value) for number, value in zip(scored, f1, strict=True)},
    }


def with_intervals(answered: np.ndarray, truth: np.ndarray, least: int = LEAST) -> dict[str, Any]:
    """What :func:`scores_of` gives, with 95 % bootstrap intervals over faces.

    Every draw is scored on the classes of the whole set. One that has no face of a class says nothing about it, and
    takes its F1 from another draw, as :func:`temporal.scoring.drawn` does.
    """
    scores = scores_of(answered, truth, least)
    scored = [EXPRESSIONS.index(name) for name in scores["f1"]]
    counts, rng = counts_of(answered, truth), np.random.default_rng(0)
    # Faces drawn with replacement fall into the cells of the confusion matrix with these shares.
    drawn = rng.multinomial(len(truth), counts.ravel() / len(truth), size=DRAWS).reshape(DRAWS, *counts.shape)
    f1, shown = f1_from_confusion(drawn)[:, scored], drawn.sum(axis=2)[:, scored] > 0
    for values, known in zip(f1.T, shown.T, strict=True):
        values[~known] = rng.choice(values[known], size=int((~known).sum()))
    scores["accuracy_95"] = interval(np.trace(drawn, axis1=1, axis2=2) / len(truth))
    scores["macro_f1_95"] = interval(f1.mean(axis=1)) if scored else None
    scores["f1_95"] = {name: interval(values) for name, values in zip(scores["f1"], f1.T, strict=True)}
    return scores


def interval(values: np.ndarray) -> list[float] | None:
    """95 % of the values that are defined; None if none is."""
    return None if np.isnan(values).all() else np.nanpercentile(values, [2.5, 97.5]).tolist()


def score(out: Path, data: Path) -> dict[str, Any]:
    """Scores on faces used neither for training nor for selection, with 95 % intervals over faces.

    Args:
        out: Where starter.py worked.
        data: The folder of the data sets.
    """
    head, _ = expression_head(out / "expr")
    sets = {
        "FER+ validation": (out / "features" / "ferplus", unique_votes(out / "labels.parquet", split="validation")),
        "muxspace val": (out / "features" / "muxspace", muxspace(data, "val")),
    }
    result: dict[str, Any] = {}
    for name, (cache, truth) in sets.items():
        values, found = answers(head, cache, truth)
        result[name] = with_intervals(named(values, found), np.array([*truth.values()])) | {
            "found": float(found.mean())
        }
    result["London"] = london(out, data, head, load_head(out / "va"))
    return result


def london(out: Path, data: Path, expr: Head, va: Head) -> dict[str, float | None]:
    """Area under the ROC curve of smiling against neutral, by the probability of happiness and by derived valence.

    Portraits that were not found are left out.
    """
    rows = [row for row in manifest(data, "london") if row["label"] in ("happiness", "neutral")]
    smiles, ids = np.array([row["label"] == "happiness" for row in rows]), [Path(row["path"]).stem for row in rows]
    result: dict[str, float | None] = {"faces": len(rows)}
    for name, head, task, column in (
        ("happiness", expr, "expr", EXPRESSIONS.index("Happiness")),
        ("valence", va, "va", 0),
    ):
        values, found = answers(head, out / "features" / "london", ids, task)
        result["found"] = float(found.mean())
        result[f"auc_{name}"] = auc(values[found & smiles, column], values[found & ~smiles, column])
    return result


def auc(positive: np.ndarray, negative: np.ndarray) -> float | None:
    """Area under the ROC curve: how often a positive value is above a negative one; None if either is empty."""
    if not len(positive) or not len(negative):
        return None
    return float(mannwhitneyu(positive, negative, method="asymptotic").statistic / (len(positive) * len(negative)))


def score_lines(scores: dict[str, Any]) -> list[str]:
    """The scores in words, one line per set, London last."""
    lines = []
    for name, part in sorted(scores.items(), key=lambda item: item[0] == "London"):
        if name == "London":
            lines.append(
                f"London ({part['faces']} portraits, {part['found']:.1%} found, smiling against neutral): AUC "
                f"{digits(part['auc_happiness'], 3)} by p(Happiness), {digits(part['auc_valence'], 3)} by derived "
                "valence"
            )
            continue
        by_class = ", ".join(f"{kind} {digits(value, 2, part['f1_95'][kind])}" for kind, value in part["f1"].items())
        lines.append(
            f"Expressions on {name} ({part['faces']:,} faces, {part['found']:.1%} found; the others count as wrong; "
            f"95 % intervals over faces): accuracy {digits(part['accuracy'], 3, part['accuracy_95'])}, macro F1 "
            f"{digits(part['macro_f1'], 3, part['macro_f1_95'])}; F1: "
            f"{by_class or f'none, since no class has {LEAST} faces'}"
        )
    return lines


def digits(value: float | None, places: int = 2, ends: Sequence[float] | None = None) -> str:
    """A number below 1 and its interval without leading zeros; a dash for what is not known."""
    text = "-" if value is None else f"{value:.{places}f}".removeprefix("0")
    return f"{text} [{', '.join(digits(end, places) for end in ends)}]" if ends else text
