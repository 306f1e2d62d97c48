"""The labelled real faces behind the starter weights, and how well heads name what is on them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from checkpoints.errors import UserError
from checkpoints.reading import read_csv
from features.cache import FeatureCache
from temporal.heads import Head, load_head
from temporal.predict import predict_cached
from wildaffect.tasks import EXPRESSIONS
from wildaffect.tasks.metrics import confusion, f1_from_confusion

VOTES = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise", "contempt")
"""Columns of FER+ in the order of `EXPRESSIONS`: contempt is in Other, of which nothing else is known."""
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


def unique_votes(labels: Path, ids: set[str] | None = None, split: str = "train") -> dict[str, int]:
    """Class of the faces of one split that most raters agree on; ties, `unknown` and `NF` are left out."""
    table = pd.read_parquet(labels)
    table = table[(table["split"] == split) & (True if ids is None else table["video"].isin(ids))]
    votes = table[[*VOTES, "unknown", "NF"]].to_numpy()
    top = votes.max(1)
    kept = ((votes == top[:, None]).sum(1) == 1) & (votes.argmax(1) < len(VOTES))
    return dict(zip(table["video"][kept], votes.argmax(1)[kept].tolist(), strict=True))


def muxspace(data: Path, split: str) -> dict[str, int]:
    """Class of muxspace's faces of one split."""
    rows = [row for row in manifest(data, "muxspace") if row["split"] == split]
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
    classes = len(EXPRESSIONS)
    counts = confusion(np.where(answered < 0, classes, answered), truth, classes + 1)
    seen = counts.sum(axis=1)
    scored = [number for number in range(classes) if seen[number] >= least]
    by_class = f1_from_confusion(counts)
    f1 = {EXPRESSIONS[number]: float(by_class[number]) for number in scored}
    recall = [counts[number, number] / seen[number] for number in scored]
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
        values, classes = answers(head, cache, truth)
        found = values.sum(1) > 0
        answered = np.where(found, values.argmax(1), -1)
        result[name] = with_intervals(answered, classes) | {"found": float(found.mean())}
    result["London"] = london(out, data, head, load_head(out / "va"))
    return result


def london(out: Path, data: Path, expr: Head, va: Head) -> dict[str, float | None]:
    """Area under the ROC curve of smiling against neutral, by the probability of happiness and by derived valence."""
    cache = FeatureCache(out / "features" / "london")
    rows = manifest(data, "london")
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
            f"Expressions on {name} ({part['faces']:,} faces, {part['found']:.1%} found; the others count as wrong): "
            f"accuracy {part['accuracy']:.3f} [{low:.3f}, {high:.3f}], macro F1 {part['macro_f1']:.3f} [{lower:.3f}, "
            f"{upper:.3f}]; F1: {by_class}"
        )
    return lines
