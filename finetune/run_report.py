"""The report of a stage-2 run: scores, confusion matrix, calibration, the most confident mistakes."""

from typing import Any

import numpy as np

from checkpoints.artifact import read_json
from finetune.labels import Split
from finetune.scoring import Scorer
from preprocessing.faces import FacesStore
from wildaffect.report import figures
from wildaffect.report.page import SYNTHETIC_NOTE, Cards, Figure, Note, Section, Table, jpeg, write_page
from wildaffect.tasks import EXPRESSIONS
from wildaffect.training.rundir import RunDirectory

MISTAKES = 24


def write_report(
    run: RunDirectory,
    store: FacesStore,
    split: Split,
    scorer: Scorer,
    probabilities: np.ndarray,
    summary: dict[str, Any],
) -> None:
    """Write `RUN/report.html`.

    The probabilities `[N, 8]` are those of the scorer's frames, from the weights that were kept; `summary` has their
    scores.
    """
    good = np.isfinite(probabilities).all(axis=1)
    predicted, truth = probabilities[good], scorer.frames.classes[good]
    confidence, answer = predicted.max(axis=1), predicted.argmax(axis=1)
    records = run.metrics()
    sections = [
        Section("Scores", _scores(split, summary)),
        Section(
            "Training",
            [
                Figure(figures.loss_curves(records, ["loss", "lr"]), "Training loss and learning rate"),
                Figure(
                    figures.loss_curves(records, ["validation_macro_f1", "validation_loss"]),
                    f"Validation; the weights of step {summary['step']} are kept",
                ),
            ],
        ),
        Section(
            "Confusion matrix",
            [Figure(figures.confusion_matrix(np.array(summary["confusion"]), EXPRESSIONS), "Validation frames")],
        ),
        Section(
            "Calibration",
            [
                Figure(
                    figures.reliability(confidence, answer == truth),
                    "How often an answer of some confidence is right; ECE: expected calibration error",
                    width=420,
                )
            ],
        ),
        Section("Most confident mistakes", _mistakes(scorer, np.flatnonzero(good), confidence, answer, truth)),
        Section("Configuration", [Table(["setting", "value"], _settings(run))]),
    ]
    note = SYNTHETIC_NOTE if store.header.get("synthetic") else ""
    write_page(run.path / "report.html", "Stage 2: fine-tuning on expressions", sections, note=note)


def _scores(split: Split, summary: dict[str, Any]) -> list[Any]:
    counts = split.counts()
    rows = [
        [name, counts["training"][number], counts["validation"][number], summary["f1"].get(name)]
        for number, name in enumerate(EXPRESSIONS)
    ]
    blocks: list[Any] = [
        f"Macro F1 {summary['macro_f1']:.4f} over {len(summary['classes'])} classes, accuracy "
        f"{summary['accuracy']:.4f}, on {summary['frames']:,} frames of {len(split.validation.ids):,} videos that were "
        "not trained on, but which chose the step: the weights kept are those with the highest of these scores during "
        "the run, so it is a little too good. There is no score on videos that chose nothing: finetune/evaluate.py "
        "scores others.",
        Table(["class", "training frames", "validation frames", "F1"], rows),
        Figure(figures.f1_bars(summary["f1"]), "F1 by class"),
    ]
    if split.class_map:
        mapped = [[name, target or "left out"] for name, target in sorted(split.class_map.items())]
        blocks.append(Table(["class of the labels", "taken for"], mapped, "Class map"))
    return blocks + [Note(note) for note in split.notes]


def _mistakes(
    scorer: Scorer, frames: np.ndarray, confidence: np.ndarray, answer: np.ndarray, truth: np.ndarray
) -> list[Any]:
    """Pictures of the wrong answers given with most confidence, one per video as far as they go."""
    wrong = np.flatnonzero(answer != truth)
    if not len(wrong):
        return ["There are none."]
    ranked = wrong[np.argsort(-confidence[wrong], kind="stable")]
    video = np.searchsorted(scorer.frames.bounds, frames, side="right")
    first = np.unique(video[ranked], return_index=True)[1]
    chosen = [*ranked[np.sort(first)], *np.delete(ranked, first)][:MISTAKES]
    cards = []
    for number in chosen:
        picture = scorer.stills[int(scorer.frames.rows[frames[number]])]
        if picture is not None:
            text = f"{EXPRESSIONS[truth[number]]}\n→ {EXPRESSIONS[answer[number]]} {confidence[number]:.2f}"
            cards.append(Figure(jpeg(picture[0].permute(1, 2, 0).numpy()), text, width=120))
    return [
        f"{len(wrong):,} of {len(answer):,} answers are wrong. Label → answer, and its probability; one per video.",
        Cards(cards),
    ]


def _settings(run: RunDirectory) -> list[list[Any]]:
    return [[key, value] for key, value in sorted(read_json(run.path / "config.json")["config"].items())]
