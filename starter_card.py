"""Writes a bundle again with what was measured of it: the lines of the card of the starter weights.

    python benchmarks/action_units.py --data FOLDER --heads BUNDLE --out UNITS.json
    python benchmarks/starter_robustness.py --pictures FOLDER --bundle BUNDLE --out STEADY.json
    python starter_card.py --bundle BUNDLE --scores SUMMARY.json --units UNITS.json --steady STEADY.json --out NEW

The weights stay what they are. Numbers come from these files alone, so they must be those of the same weights.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from checkpoints.artifact import read_json
from checkpoints.errors import UserError, guarded
from starter_scores import digits, score_lines
from wildaffect.inference.bundle import write_bundle
from wildaffect.inference.models import load_models
from wildaffect.tasks import AUS

SHOWN = {"AU1": 0.15, "AU4": 0.2, "AU10": 0.12, "AU12": 0.3, "AU25": 0.5, "AU26": 0.17}
"""The action units that are reported: at least 20 hand-labelled real faces show them, and the head tells them apart
(benchmarks/action_units.py). The numbers are the shares of FER+'s training faces that are taken to show them, which set
the thresholds."""
GOALS = {
    "AU1 on Surprise": 0.85,
    "AU2 on Surprise": 0.85,
    "AU4 on Anger": 0.75,
    "AU6 on Happiness": 0.85,
    "AU10 on Disgust": 0.85,
    "AU12 on Happiness": 0.95,
    "AU25 on Happiness": 0.92,
    "AU25 on Surprise": 0.92,
    "AU26 on Surprise": 0.94,
}
"""AUC of an emotion's faces against neutral ones that an action unit should reach on FER+ and muxspace."""
SMILES = {"AU6": 0.90, "AU12": 0.97, "AU25": 0.95}
"""The same for smiling against neutral people of London."""
WEAK, FEW, ALARMS = 0.75, 6, 0.05
"""AUC without a goal of its own; least faces for an AUC; share of neutral faces that may be named."""
UNLIKE = 0.35
"""Highest AUC, against neutral faces, of an emotion that lacks the action unit."""
LEARNT = (
    "FER+ train: votes MIT (Barsoum et al. 2016), pixels of FER2013 without a formal licence, for research. The "
    "weights are therefore for research.",
    "Contempt counts as Other, and Other is learnt from nothing else: other kinds of Other cannot be predicted.",
    "Valence and arousal are derived from the votes by the norms of Russell and Mehrabian (1977): no one rated them.",
)


@dataclass(frozen=True)
class Card:
    """Write a bundle with the lines that say what was measured of it."""

    bundle: Path
    """Bundle of the starter weights."""
    scores: Path
    """`summary.json` of starter.py."""
    out: Path
    """Folder to write; the bundle stays as it is."""
    units: Path | None = None
    """Result of benchmarks/action_units.py."""
    renders: Path | None = None
    """Result of benchmarks/renders_only.py."""
    steady: Path | None = None
    """Result of benchmarks/starter_robustness.py."""


def main(config: Card) -> None:
    """Write the bundle.

    Raises:
        UserError: The bundle or a result cannot be read, or results of action units are given for heads without any.
    """
    models = load_models([config.bundle])
    learnt = "au" in models.kinds
    if not learnt and (config.units or config.renders):
        raise UserError(f"{config.bundle} has no head for action units: leave out --units and --renders")
    data, scores = data_lines(learnt), score_lines(read_json(config.scores)["scores"])
    units = read_json(config.units) if config.units else None
    if config.renders and units:
        data.append(renders_line(units, read_json(config.renders)))
    if units:
        scores += unit_lines(units, models.withheld)
    if config.steady:
        scores.append(steady_line(read_json(config.steady)))
    write_bundle([config.bundle], config.out, data=data, scores=scores, keep=False)


def data_lines(units: bool) -> list[str]:
    """What the weights learnt from, with or without action units."""
    if not units:
        return [*LEARNT]
    shares = ", ".join(f"{name} {digits(share)}" for name, share in SHOWN.items())
    return [
        *LEARNT,
        "Action units are learnt from rendered faces (ICT-FaceKit, MIT) alone, by the head and by the encoder: no one "
        "labelled them on a real face. The encoder learnt from the votes too, which lets some of them show on real "
        "faces (benchmarks/renders_only.py).",
        f"The thresholds of action units suppose that these shares of FER+'s training faces show them: {shares}.",
    ]


def renders_line(units: dict[str, Any], renders: dict[str, Any]) -> str:
    """What the head is without the votes."""
    pairs = ", ".join(
        f"{name} {digits(renders['hand_labels'][name]['auc'])} (with them {digits(units['hand_labels'][name]['auc'])})"
        for name in SHOWN
    )
    return f"Action units without the votes, on an encoder that learnt from renders alone, AUC on hand labels: {pairs}."


def unit_lines(result: dict[str, Any], withheld: Iterable[str]) -> list[str]:
    """What benchmarks/action_units.py found, good and bad: a table of the action units that are reported."""
    withheld, hand, sets = set(withheld), result["hand_labels"], result["sets"]
    people = result["smiles"]["held-out people"]
    rows = [
        "| | hand labels: AUC | F1 | present | emotions against neutral, AUC on FER+ / muxspace | smiles of "
        f"{people['people']} held-out people, AUC | named in neutral faces of {' / '.join(sets)} |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in (name for name in AUS if name not in withheld):
        part = hand[name]
        smiles = people["auc"][name] if name in SMILES else None
        alarms = [(of["false_alarms"] or {}).get(name) for of in sets.values()]
        cells = [
            name,
            digits(part["auc"], 2, part["auc_95"]),
            digits(part["f1"], 2, part["f1_95"]),
            f"{part['present']} of {part['judged']}",
            ", ".join(f"{kind} {' / '.join(areas)}" for kind, areas in emotions(name, sets).items()),
            marked(smiles, smiles is not None and smiles < SMILES[name]),
            " / ".join(marked(share, share is not None and share > ALARMS) for share in alarms),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    unlike = ", ".join(
        f"{what} {marked(area, area is not None and area > UNLIKE)}"
        for what, area in sets["FER+ validation"]["specificity"].items()
        if what.split()[0] not in withheld
    )
    failed = "; ".join(f"{name} ({', '.join(hand[name]['fails'])})" for name in AUS if name in withheld)
    return [
        "Action units on real faces (benchmarks/action_units.py). The hand labels are of faces coded twice by a "
        "vision-language model, not by certified coders, and count where both codes agree; the other columns infer "
        "the action unit from an emotion. **Bold: weak**, short of the project's goal or, where it has none, of an "
        f"AUC of {digits(WEAK)}; more than {ALARMS:.0%} of neutral faces named.",
        "\n".join(rows),
        f"AUC against neutral faces of FER+ for an emotion that lacks the action unit, at most {digits(UNLIKE)} "
        f"wanted: {unlike}.",
        *([f"Withheld action units, on the hand labels: {failed}."] if failed else []),
    ]


def emotions(name: str, sets: dict[str, Any]) -> dict[str, list[str]]:
    """AUC on FER+ and muxspace of each emotion whose prototype has an action unit; a dash for too few faces."""
    found: dict[str, list[str]] = {}
    for of in (sets["FER+ validation"], sets["muxspace val"]):
        for kind, part in of["prototypes"][name].items():
            area = part["neutral"] if part["faces"] >= FEW else None
            weak = area is not None and area < GOALS.get(f"{name} on {kind}", WEAK)
            found.setdefault(kind, []).append(marked(area, weak))
    return found


def marked(value: float | None, weak: bool) -> str:
    """A number, bold if it is weak."""
    return f"**{digits(value)}**" if weak else digits(value)


def steady_line(result: dict[str, Any]) -> str:
    """How far the answer for a face stays in other pictures of it."""
    parts = {name: part for name, part in result.items() if isinstance(part, dict)}
    shares = ", ".join(f"{name} {digits(part['within_0.1'])} of {part['faces']}" for name, part in parts.items())
    return (
        "The same face in another picture: share of faces whose expression probabilities all stay within .1 "
        f"(benchmarks/starter_robustness.py): {shares}."
    )


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Card, description=__doc__)))
