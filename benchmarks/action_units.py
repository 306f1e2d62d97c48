"""Do action units show on real faces? `python benchmarks/action_units.py --data FOLDER --heads BUNDLE`.

Most checks infer action units from a labelled emotion, whose prototype has them: a network that only knows smiles would
pass many of these. What decides is the score on faces whose action units were coded by looking (see
`benchmarks/data/README.md`). Each AUC is the area under the ROC curve of an action unit's probability.
"""

import tempfile
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

from benchmarks.au_labels import HandLabels, read_hand_labels
from benchmarks.peers import Faces, ferplus_validation, find_faces, muxspace_val, predict_faces
from checkpoints.artifact import write_json
from checkpoints.errors import UserError, guarded
from starter_scores import DRAWS, VOTES, auc, check_data, digits, interval, manifest
from synthwild.process import PROTOTYPES
from wildaffect.inference.models import DEFAULT
from wildaffect.inference.predictor import Predictor
from wildaffect.tasks import AUS, EXPRESSIONS, TASKS

AU = TASKS["au"]
NEUTRAL, OTHER = EXPRESSIONS.index("Neutral"), EXPRESSIONS.index("Other")
SPECIFICITY = (("AU12", "Surprise"), ("AU4", "Surprise"), ("AU26", "Anger"))
"""Action units that an emotion lacks: their AUC should not be above one half."""
POINTS = (("AU12", "Happiness", 0.8), ("AU1", "Surprise", 0.6), ("AU2", "Surprise", 0.6))
"""Share of an emotion's faces in which the action unit is to be found, to see what that costs on neutral faces."""
LEAST_AUC, LEAST_PRESENT = 0.75, 20
"""An action unit below either on the hand labels is not to be shipped."""
HELD = "held"
"""In the hand labels, the split of London's people whose skin no render may have."""


@dataclass(frozen=True)
class ActionUnits:
    """Check the action units of a bundle or head on real faces."""

    data: Path
    """Folder with `ferplus/validation.parquet`, `muxspace/`, `london/`, `videos/` and `manifest.csv`."""
    heads: Path = DEFAULT
    """Bundle, run or head that predicts action units."""
    labels: Path = Path(__file__).parent / "data" / "action_units.csv"
    """Hand labels."""
    workers: int = 2
    """Number of processes for face detection."""
    out: Path | None = None
    """Where to record the results as JSON."""


@dataclass(frozen=True)
class Answers:
    """What the heads say of the `N` faces of a set that were found.

    Attributes:
        found: Indices `[N]` of these faces in the set.
        values: Probabilities `[N, 12]`.
        named: Whether they reach the heads' thresholds, `[N, 12]` bool.
        truth: Classes `[N]`, indices into `EXPRESSIONS`.
    """

    found: np.ndarray
    values: np.ndarray
    named: np.ndarray
    truth: np.ndarray


def main(config: ActionUnits) -> dict[str, Any]:
    """Run all checks and return what is recorded.

    Raises:
        UserError: The folder lacks a data set, the hand labels cannot be read, or no head predicts action units.
    """
    check_data(config.data)
    labels = read_hand_labels(config.labels)
    predictor = Predictor(config.heads, device="cpu")
    if AU not in predictor.models.tasks:
        raise UserError(f"{config.heads} has no head for action units: name one with --heads")
    portraits, people = london(config.data)
    result: dict[str, Any] = {"heads": predictor.models.sources, "sets": {}}
    answers = {}
    for faces in (ferplus_validation(config.data), muxspace_val(config.data), portraits):
        answers[faces.name] = answer(faces, predictor, config.workers)
        result["sets"][faces.name] = {"faces": len(faces.truth)} | check_emotions(answers[faces.name])
    held = set(labels.people[labels.splits == HELD].tolist())
    smiles = answers[portraits.name]
    result["smiles"] = {
        "all": check_smiles(smiles, people),
        "held-out people": check_smiles(smiles, np.where(np.isin(people, [*held]), people, "")),
    }
    result["clips"] = {path.name: check_clip(predictor, path) for path in sorted((config.data / "videos").glob("*"))}
    seen = answer(labels.faces(config.data), predictor, config.workers)
    result["hand_labels"] = check_hand_labels(seen, labels)
    result["agreement"] = labels.agreement()
    for line in lines(result):
        print(line)
    if config.out:
        write_json(config.out, result)
    return result


def london(folder: Path) -> tuple[Faces, np.ndarray]:
    """London's portraits, and whose each is `[N]`.

    Raises:
        UserError: The manifest does not say whose they are.
    """
    rows = [row for row in manifest(folder, "london") if row["label"] in VOTES]
    if any(not row.get("subject") for row in rows):
        raise UserError(f"{folder / 'manifest.csv'}: column subject: name the person of every picture of london")
    pictures = [(folder / row["path"]).read_bytes() for row in rows]
    classes = np.array([VOTES.index(row["label"]) for row in rows])
    return Faces("London", pictures, classes), np.array([row["subject"] for row in rows])


def answer(faces: Faces, predictor: Predictor, workers: int) -> Answers:
    """Ask the heads about the main face of each picture, one picture at a time."""
    with tempfile.TemporaryDirectory() as folder:
        store, rows = find_faces(faces, predictor, Path(folder), workers)
        found = np.flatnonzero(rows >= 0)
        values = predict_faces(predictor, store, rows, AU)[found]
    named = [predictor.models.decode(AU, alone[None], 1.0)[0] for alone in values]
    return Answers(found, values, np.array(named, bool), faces.truth[found])


def check_emotions(answers: Answers) -> dict[str, Any]:
    """What the emotions of a set say about its action units.

    Returns:
        `prototypes`: by action unit and emotion whose prototype has it, AUC against neutral faces and against those of
        all emotions whose prototype lacks it (neutral among them, Other not); `specificity`: AUC of :data:`SPECIFICITY`
        against neutral; `false_alarms`: share of neutral faces that are named, by action unit; `points`: the same at
        the thresholds of :data:`POINTS`. An entry is None if one of its classes has no face.
    """
    neutral = answers.truth == NEUTRAL
    prototypes: dict[str, Any] = {name: {} for name in AUS}
    for number, name in enumerate(AUS):
        having = [kind for kind, units in enumerate(PROTOTYPES) if name in units and kind != OTHER]
        others = ~np.isin(answers.truth, [*having, OTHER])
        for kind in having:
            shown = answers.values[answers.truth == kind, number]
            prototypes[name][EXPRESSIONS[kind]] = {
                "faces": len(shown),
                "neutral": auc(shown, answers.values[neutral, number]),
                "others": auc(shown, answers.values[others, number]),
            }

    def of(name: str, emotion: str) -> np.ndarray:
        return answers.values[answers.truth == EXPRESSIONS.index(emotion), AUS.index(name)]

    points = {}
    for name, emotion, share in POINTS:
        shown, calm = of(name, emotion), of(name, "Neutral")
        threshold = float(np.sort(shown)[-ceil(share * len(shown))]) if len(shown) else None
        false = float((calm >= threshold).mean()) if threshold is not None and len(calm) else None
        points[name] = {"emotion": emotion, "found": share, "threshold": threshold, "false_alarms": false}
    return {
        "found": len(answers.found),
        "prototypes": prototypes,
        "specificity": {
            f"{name} on {emotion}": auc(of(name, emotion), of(name, "Neutral")) for name, emotion in SPECIFICITY
        },
        "neutral": int(neutral.sum()),
        "false_alarms": by_unit(answers.named[neutral].mean(0)) if neutral.any() else None,
        "points": points,
    }


def check_smiles(answers: Answers, people: np.ndarray) -> dict[str, Any]:
    """Smiling against neutral portraits of the same people.

    Args:
        answers: Of the portraits.
        people: Whose each portrait of the set is; those of '' do not count.

    Returns:
        By action unit, `auc` and `paired`: the share of people in whom it is more probable when they smile.
    """
    rows: dict[str, dict[int, int]] = {}
    for row, person in enumerate(people[answers.found].tolist()):
        rows.setdefault(person, {})[int(answers.truth[row])] = row
    pairs = [part for person, part in rows.items() if person and len(part) == 2]
    smiling, calm = (
        answers.values[[part[kind] for part in pairs]] for kind in (EXPRESSIONS.index("Happiness"), NEUTRAL)
    )
    return {
        "people": len(pairs),
        "auc": {name: auc(smiling[:, number], calm[:, number]) for number, name in enumerate(AUS)},
        "paired": by_unit((smiling > calm).mean(0)) if pairs else None,
    }


def check_clip(predictor: Predictor, path: Path) -> dict[str, Any]:
    """Frames with a face of a clip's main person, and in which share of them each action unit is named."""
    table = predictor.predict(path).to_pandas()
    seen = table[table["face"] & (table["subject"] == "")]
    named = {name: float(seen[name].mean()) for name in AUS if name in seen}  # a head may withhold some
    return {"frames": len(seen), "named": named if len(seen) else None}


def check_hand_labels(answers: Answers, labels: HandLabels) -> dict[str, dict[str, Any]]:
    """Scores on the codes on which all passes agree, with 95 % bootstrap intervals over people.

    Returns:
        By action unit: faces that are `judged` and have it `present`; `auc`; `f1` at the heads' threshold, and that of
        always answering "present"; and `fails`, why it is not to be shipped, empty if nothing speaks against it.
    """
    codes = labels.agreed()[answers.found]
    names, person = np.unique(labels.people[answers.found], return_inverse=True)
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)
    weights = np.concatenate([np.ones((1, len(names)), int), drawn])[:, person]
    result = {}
    for number, name in enumerate(AUS):
        judged = ~np.isnan(codes[:, number])
        present, w = codes[judged, number] == 1, weights[:, judged]
        value, named = answers.values[judged, number], answers.named[judged, number]
        areas, f1, always = auc_of(value, present, w), f1_of(named, present, w), f1_of(present | True, present, w)
        part: dict[str, Any] = {
            "judged": int(judged.sum()),
            "present": int(present.sum()),
            "auc": known(areas[0]),
            "auc_95": interval(areas[1:]),
            "f1": known(f1[0]),
            "f1_95": interval(f1[1:]),
            "f1_always": known(always[0]),
        }
        part["fails"] = reasons(part["present"], part["auc"])
        result[name] = part
    return result


def reasons(present: int, area: float | None) -> list[str]:
    """Why an action unit is not to be shipped, by the faces that show it and its AUC."""
    few = [f"fewer than {LEAST_PRESENT} present"] if present < LEAST_PRESENT else []
    if area is None:
        return [*few, "AUC not defined: all faces have it, or none"]
    return [*few, f"AUC below {LEAST_AUC}"] if area < LEAST_AUC else few


def auc_of(value: np.ndarray, present: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUC `[D]` of probabilities `[N]`, once for each row of `weights` `[D, N]`; NaN where it is not defined."""
    above = np.sign(value[present][:, None] - value[~present]) / 2 + 0.5
    with_it, without = weights[:, present], weights[:, ~present]
    return ratio((with_it @ above * without).sum(1), with_it.sum(1) * without.sum(1))


def f1_of(named: np.ndarray, present: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """F1 `[D]` of bool answers `[N]`, once for each row of `weights` `[D, N]`; NaN if there is nothing to find."""
    there = weights @ present
    return ratio(2 * weights @ (named & present), np.where(there, weights @ named + there, 0))


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient, NaN where it would be by 0."""
    return np.where(below > 0, above / np.maximum(below, 1), np.nan)


def known(value: float) -> float | None:
    """None in place of NaN, which JSON lacks."""
    return None if np.isnan(value) else float(value)


def by_unit(shares: np.ndarray) -> dict[str, float]:
    """Twelve numbers with their names."""
    return dict(zip(AUS, shares.tolist(), strict=True))


def lines(result: dict[str, Any]) -> list[str]:
    """What is recorded, for reading: a table by action unit, and below it what is not by action unit."""
    hand, sets, smiles = result["hand_labels"], result["sets"], result["smiles"]
    table: dict[str, dict[str, str]] = {}
    for name in AUS:
        part, kappa = hand[name], result["agreement"][name]["kappa"]
        row = {
            "present": f"{part['present']}/{part['judged']}",
            "kappa": digits(kappa),
            "AUC": digits(part["auc"], 2, part["auc_95"]),
            "F1": digits(part["f1"], 2, part["f1_95"]),
            "always": digits(part["f1_always"]),
        }
        for who, of in smiles.items():
            row[f"smile, {who}"] = digits(of["auc"][name])
        for place, of in sets.items():
            for against in ("neutral", "others") if place != "London" else ():
                parts = of["prototypes"][name].items()
                row[f"{place}: {against}"] = " ".join(f"{kind[:3]} {digits(areas[against])}" for kind, areas in parts)
            row[f"{place}: false"] = digits((of["false_alarms"] or {}).get(name))
        table[name] = row
    with pd.option_context("display.width", None, "display.max_columns", None, "display.max_colwidth", None):
        text = pd.DataFrame.from_dict(table, orient="index").to_string()
    out = [
        "Hand labels: present/judged, agreement, AUC, F1 at the heads' threshold and of always answering present. "
        "Then AUC of smiling against neutral people; AUC of emotions against neutral and all others; share of neutral "
        "faces that are named.",
        text,
    ]
    for place, of in sets.items():
        out.append(f"{place}: {of['found']:,} of {of['faces']:,} faces found, {of['neutral']:,} of them neutral")
        out += [f"  {what}, against neutral: AUC {digits(area)}" for what, area in of["specificity"].items()]
        out += [
            f"  threshold that finds {name} in {point['found']:.0%} of {point['emotion']}: named in "
            f"{digits(point['false_alarms'])} of neutral faces"
            for name, point in of["points"].items()
        ]
    for clip, of in result["clips"].items():
        named = " ".join(f"{name} {digits(share)}" for name, share in (of["named"] or {}).items())
        out.append(f"{clip}: {of['frames']} frames with a face; named in {named or 'none'}")
    failing = [f"{name} ({', '.join(part['fails'])})" for name, part in hand.items() if part["fails"]]
    out.append(f"Not to be shipped: {'; '.join(failing) or 'none'}")
    return out


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(ActionUnits, description=__doc__)))
