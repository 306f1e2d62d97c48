"""Plots and pages about predictions of frames: of a training run, and of predictions from any source."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Drawing

from temporal.recipes import APART, Temporal
from temporal.scoring import Scored, interval, p_mtl, parts_of, scored_on
from wildaffect.report import figures
from wildaffect.report.page import PLANE, SYNTHETIC_NOTE, Cards, Figure, Note, Section, Table, write_page
from wildaffect.report.palette import EXPRESSION_COLOURS, GREY, MARK, PLAIN
from wildaffect.tasks import AUS, EXPRESSIONS, TASKS
from wildaffect.tasks.metrics import confusion

METRICS = (
    "Official metrics over all annotated frames, each once. The interval is a bootstrap over videos; a class that a "
    "draw does not show takes its F1 from another draw."
)
SHORT = 30  # a video with fewer frames is not shown as an example


def write_run_report(
    path: Path,
    config: Temporal,
    records: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    scored: Mapping[str, Sequence[Scored]],
) -> None:
    """Write the page of a training run from its `metrics.jsonl`, its summary and the sequences to plot, by task."""
    part = "validation" if summary["validation"] else "held_out"
    rows = []
    for name in (name for name in TASKS if name in summary[part]):
        for key, where in (("held_out", "held out (chose)"), ("validation", "validation")):
            if summary[key] and name in summary[key]:
                rows.append([TASKS[name].title, where, *_score_cells(summary[key][name])])
    header = ["task", "videos", "score", "95 % interval", "without smoothing and thresholds", "best constant", "frames"]
    chosen = "; ".join(
        f"{name}: {item['kind']}" + (f" {item['width']:g} {item['unit']}" if item["kind"] != "none" else "")
        for name, item in summary["smoothing"].items()
    )
    who = "validation videos: score a test split" if config.tune_on == "validation" else "held-out training videos"
    blocks: list[Any] = [
        Table(header, rows, METRICS),
        f"Smoothing: {chosen}. Epoch, smoothing and AU thresholds were chosen on the {who}, so the scores held out are "
        f"too high. What is only scored: {scored_on(summary)}.",
    ]
    if len(summary["members"]) > 1:
        members = [
            [item["name"], *(item["validation"].get(name, {}).get("score") for name in scored)]
            for item in summary["members"]
        ]
        blocks.append(Table(["head", *scored], members, "Validation scores of each head"))
    sections = [Section("Scores", blocks)]
    if any("held_out" in record for record in records):
        curves = figures.loss_curves(records, ["loss", "held_out"])
        sections.append(
            Section("Training", [Figure(curves, "Training loss, and raw official score on the held-out videos")])
        )
    for name, items in scored.items():
        if items:
            sections += task_sections(name, summary[part][name], items, part.replace("_", "-"))
    settings = {key: value for key, value in asdict(config).items() if key not in APART}
    sections.append(Section("Settings", [Table(["option", "value"], list(settings.items()))]))
    note = SYNTHETIC_NOTE if summary["synthetic"] else ""
    write_page(path, f"Stage 3: {config.task} {config.recipe}", sections, note=note)


def write_evaluation(
    path: Path,
    results: Mapping[str, Mapping[str, Any]],
    scored: Mapping[str, Sequence[Scored]],
    notes: Sequence[str],
    synthetic: bool,
) -> None:
    """Write the page of an evaluation: scores, what to know about them, and plots, task by task."""
    header = ["task", "score", "95 % interval", "best constant", "frames"]
    rows = []
    for name, result in results.items():
        score, between, _, chance, frames = _score_cells(result)
        rows.append([TASKS[name].title, score, between, chance, frames])
    if results.keys() == TASKS.keys():
        rows.append(["P_MTL, their sum", p_mtl(results), None, None, None])
    sections = [Section("Scores", [Table(header, rows, METRICS), *map(Note, notes)])]
    for name, items in scored.items():
        sections += task_sections(name, results[name], items, "evaluated")
    write_page(path, "Evaluation", sections, note=SYNTHETIC_NOTE if synthetic else "")


def _score_cells(result: Mapping[str, Any]) -> list[Any]:
    return [result["score"], interval(result), result.get("raw"), result["chance"], result["frames"]]


def task_sections(name: str, result: Mapping[str, Any], items: Sequence[Scored], what: str) -> list[Section]:
    """Tables and plots of one task's scores and scored sequences; `what` names the videos in the captions."""
    draw = {"va": _va_blocks, "expr": _expression_blocks, "au": _action_unit_blocks}[name]
    thresholds = result.get("thresholds", {})
    header = ["", "CCC" if name == "va" else "F1", *(["threshold"] if thresholds else [])]
    rows = [[key, value, *([thresholds[key]] if thresholds else [])] for key, value in parts_of(result).items()]
    parts = Table(header, rows)
    blocks: list[Any] = [parts, *draw(result, items)]
    ranked = rank_videos(name, items)
    if ranked:
        best, worst = ranked[-1], ranked[0]
        title = "CCC" if name == "va" else "share of correct labels"
        blocks += [
            Figure(timeline(name, item), f"The {which} of the {what} videos by {title}: {item.id} ({value:.2f})")
            for which, (value, item) in (("best", best), ("worst", worst))
        ]
    else:
        blocks.append(Note(f"No video has {SHORT} frames or more, so no time line is shown."))
    return [Section(TASKS[name].title, blocks)]


def rank_videos(name: str, items: Sequence[Scored]) -> list[tuple[float, Scored]]:
    """Rank the sequences that are long enough by their own score, the worst first.

    For VA this is the mean CCC; for Expr and AU the share of correct labels, because few classes occur in one video.
    """
    ranked = []
    for item in items:
        if len(item.frames) >= SHORT:
            if name == "va":
                value = TASKS[name].score(item.decoded, item.labels, item.mask)["score"]
            else:
                value = float((item.decoded == item.labels)[item.mask].mean())
            ranked.append((value, item))
    return sorted(ranked, key=lambda pair: (pair[0], pair[1].id))


def _va_blocks(_: Mapping[str, Any], items: Sequence[Scored]) -> list[Any]:
    both = [item.mask.all(axis=1) for item in items]
    labels = np.concatenate([item.labels[seen] for item, seen in zip(items, both, strict=True)])
    predicted = np.concatenate([item.decoded[seen] for item, seen in zip(items, both, strict=True)])
    error = np.linalg.norm(predicted - labels, axis=1)
    planes = [
        Figure(figures.va_circumplex(labels), "Distribution of the labels", PLANE),
        Figure(figures.va_circumplex(predicted), "Distribution of the predictions", PLANE),
        Figure(figures.va_circumplex(labels, error), "Mean distance between prediction and label", PLANE),
    ]
    return [Cards(planes)]


def _expression_blocks(result: Mapping[str, Any], items: Sequence[Scored]) -> list[Any]:
    labels, predicted = (
        np.concatenate([getattr(item, part)[:, 0] for item in items]) for part in ("labels", "decoded")
    )
    counts = confusion(predicted, labels, len(EXPRESSIONS))
    blocks: list[Any] = [
        Figure(figures.f1_bars(result["f1"]), "F1 by expression"),
        Figure(figures.confusion_matrix(counts, EXPRESSIONS), "Confusion matrix of the annotated frames"),
    ]
    if all(item.values is not None for item in items):
        values = np.concatenate([np.asarray(item.values) for item in items])
        confidence = values.max(axis=1)
        blocks.append(
            Figure(figures.reliability(confidence, predicted == labels), "Reliability of the probabilities", 420)
        )
    return blocks


def _action_unit_blocks(result: Mapping[str, Any], items: Sequence[Scored]) -> list[Any]:
    labels, mask = (np.concatenate([getattr(item, part) for item in items]) for part in ("labels", "mask"))
    positive = ((labels > 0.5) & mask).sum(axis=0)
    constant = dict(zip(AUS, 2 * positive / np.maximum(mask.sum(axis=0) + positive, 1), strict=True))
    bars = figures.f1_bars(result["f1"], reference=constant, against="always present")
    blocks: list[Any] = [Figure(bars, "F1 by action unit")]
    if all(item.values is not None for item in items):
        values = np.concatenate([np.asarray(item.values) for item in items])
        decoded = np.concatenate([item.decoded for item in items])
        blocks.append(
            Figure(
                precision_recall(values, decoded, labels, mask), "Precision over recall; the dot marks the threshold"
            )
        )
    return blocks


def precision_recall(values: np.ndarray, decoded: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> Drawing:
    """Plot precision over recall of every AU, with the operating point.

    All arrays are `[N, 12]`: probabilities, decisions (0 or 1), labels, and the bool mask.
    """
    drawing, axes = figures.canvas(2, 6, height=3.4, sharex=True, sharey=True)
    for column, axis in enumerate(axes.flat):
        seen = mask[:, column]
        true = labels[seen, column] > 0.5
        axis.set_title(AUS[column], fontsize=9, loc="left")
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.05))
        if true.any():
            hits = np.cumsum(true[np.argsort(-values[seen, column], kind="stable")])
            axis.plot(hits / true.sum(), hits / np.arange(1, len(hits) + 1), color=PLAIN, linewidth=1.3)
            axis.axhline(true.mean(), color=GREY, linewidth=0.8, linestyle="--")
            chosen = decoded[seen, column] > 0.5
            right = (chosen & true).sum()
            axis.plot(right / true.sum(), right / max(chosen.sum(), 1), "o", color=MARK, markersize=4)
        else:
            axis.text(0.5, 0.5, "never\npresent", ha="center", va="center", fontsize=8)
    drawing.supxlabel("recall", fontsize=9)
    drawing.supylabel("precision", fontsize=9)
    return drawing


def timeline(name: str, item: Scored) -> Drawing:
    """Plot predictions and labels of one sequence over its frames."""
    shown = np.where(item.mask, item.labels, np.nan)
    if name == "va":
        drawing = figures.va_timeline(item.frames, item.decoded, shown, title=item.id)
        drawing.axes[-1].set_xlabel("frame")
        return drawing
    if name == "expr":
        drawing, axes = figures.canvas(1, 1, height=1.9)
        axis = axes[0, 0]
        for row, numbers in ((1, item.labels[:, 0]), (0, item.decoded[:, 0])):
            for number, expression in enumerate(EXPRESSIONS):
                at = numbers == number
                axis.bar(
                    item.frames[at],
                    0.8,
                    bottom=row - 0.4,
                    width=1.02,
                    color=EXPRESSION_COLOURS[expression],
                    linewidth=0,
                )
        present = sorted({int(n) for n in np.concatenate([item.labels[:, 0], item.decoded[:, 0]])})
        for number in present:
            axis.bar(item.frames[0], 0, color=EXPRESSION_COLOURS[EXPRESSIONS[number]], label=EXPRESSIONS[number])
        figures.key_above(axis, 8, loc="lower left", bbox_to_anchor=(0, 1), fontsize=8)
        axis.set_yticks([1, 0], ["true", "predicted"])
        axis.set_xlabel("frame")
        return drawing
    drawing, axes = figures.canvas(1, 2, height=2.8, sharey=True)
    first, last = int(item.frames[0]), int(item.frames[-1])
    for axis, numbers, title in ((axes[0, 0], shown, "true"), (axes[0, 1], item.decoded, "predicted")):
        every = np.full((last - first + 1, len(AUS)), np.nan)
        every[item.frames - first] = numbers
        axis.imshow(
            every.T,
            aspect="auto",
            cmap="Greys",
            vmin=0,
            vmax=1.3,
            extent=(first, last + 1, 11.5, -0.5),
            interpolation="nearest",
        )
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_yticks(range(12), AUS, fontsize=8)
        axis.set_xlabel("frame")
    return drawing
