"""The figures of the stages' reports.

Each function returns a matplotlib figure for :class:`wildaffect.report.page.Figure`. No display is needed.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image
from scipy.sparse.linalg import svds

from wildaffect.report.palette import AROUSAL, EXPRESSION_COLOURS, GREY, MARK, PLAIN, SEQUENTIAL, VALENCE

DPI = 110
WIDE = 9.0
MARKERS = "os^DvPX<"
CELLS = 25
"""Cells per axis of the valence-arousal plane."""
BINS = 10
"""Bins of equal width of a reliability diagram."""


def canvas(
    rows: int = 1, columns: int = 1, *, width: float = WIDE, height: float = 3.2, tight: bool = False, **kwargs: Any
) -> tuple[Figure, np.ndarray]:
    """Make an empty figure and its axes `[rows, columns]`. Sizes are in inches; `tight` suits pictures side by side."""
    style: Any = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 10}
    gaps: Any = {"w_pad": 0.01, "h_pad": 0.01, "wspace": 0.02, "hspace": 0.02} if tight else {}
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height), dpi=DPI, layout=ConstrainedLayoutEngine(compress=True, **gaps))
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    return figure, axes


def key_above(axis: Axes, columns: int, **kwargs: Any) -> None:
    """Put the key above an axis, where it covers nothing that is drawn."""
    place: Any = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.1, "fontsize": 8.5}
    axis.legend(**{**place, "frameon": False, "ncols": columns, "handlelength": 1.2, "columnspacing": 1.2, **kwargs})


def mae_reconstructions(triples: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Figure:
    """Show what a masked autoencoder saw and what it predicted.

    Args:
        triples: (original, masked, predicted) pictures, uint8 `[H, W, 3]`; in `predicted` the visible patches come from
            the original.
    """
    # In the order of reading: input, prediction, truth.
    names = (("masked", 1), ("predicted", 2), ("original", 0))
    return picture_grid([(name, [triple[part] for triple in triples]) for name, part in names])


def picture_grid(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]], columns: Sequence[str] = (), *, side: int = 112
) -> Figure:
    """Show pictures side by side in named rows.

    Args:
        rows: Name and pictures (uint8 `[H, W, 3]`) of each row.
        columns: Names of the columns, if any.
        side: Size of a picture in pixels.
    """
    count = max(len(pictures) for _, pictures in rows)
    # One picture in one axis: an axis for each would take a hundred times as long to draw.
    grid = np.full((len(rows), side, count, side, 3), 255, np.uint8)
    for row, (_, pictures) in enumerate(rows):
        for column, picture in enumerate(pictures):
            grid[row, 1:-1, column, 1:-1] = np.asarray(Image.fromarray(picture).resize((side - 2, side - 2)))
    grid = grid.reshape(len(rows) * side, count * side, 3)
    width, height = count * side / DPI + 0.9, len(rows) * side / DPI + (0.35 if columns else 0.1)
    figure, axes = canvas(width=width, height=height, tight=True)
    axis = axes[0, 0]
    axis.imshow(grid, interpolation="antialiased")
    axis.set_yticks((np.arange(len(rows)) + 0.5) * side, [name for name, _ in rows], rotation=90, va="center")
    axis.set_xticks((np.arange(len(columns)) + 0.5) * side, columns, fontsize=8)
    axis.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    return figure


def loss_curves(records: Iterable[Mapping[str, Any]], keys: Sequence[str] = ("loss",)) -> Figure:
    """Plot logged values over steps.

    Args:
        records: Lines of `metrics.jsonl`. A curve skips the lines without its key.
        keys: Keys to plot, one panel each.
    """
    records = list(records)
    figure, axes = canvas(1, len(keys), width=min(WIDE, 4.5 * len(keys)), height=2.8)
    for axis, key in zip(axes[0], keys, strict=True):
        points = np.array(
            [(record["step"], record[key]) for record in records if record.get(key) is not None], float
        ).reshape(-1, 2)
        dotted = "." if len(points) < 60 else ""
        axis.plot(points[:, 0], points[:, 1], color=PLAIN, marker=dotted, linewidth=1.4)
        axis.set_xlabel("step")
        axis.set_title(key.replace("_", " "), fontsize=10, loc="left")
        axis.grid(alpha=0.25)
    return figure


def confusion_matrix(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Plot a confusion matrix with the share of each true class as colour and text, and the count below.

    Args:
        counts: `[C, C]`; rows are true classes, columns are predicted classes.
        names: Names of the `C` classes.
    """
    counts = np.asarray(counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = canvas(width=0.75 * len(names) + 1.6, height=0.62 * len(names) + 1.2)
    axis = axes[0, 0]
    image = axis.imshow(share, cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="auto")
    for row in range(len(names)):
        for column in range(len(names)):
            if counts[row, column]:
                axis.text(
                    column,
                    row,
                    f"{share[row, column]:.2f}\n{counts[row, column]:,}",
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color="black" if share[row, column] > 0.55 else "white",
                )
    axis.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    figure.colorbar(image, ax=axis, label="share of the true class", fraction=0.05, pad=0.02)
    return figure


def va_timeline(
    time_s: np.ndarray, predicted: np.ndarray, true: np.ndarray | None = None, *, title: str = ""
) -> Figure:
    """Plot valence and arousal over time.

    Args:
        time_s: Seconds `[T]`.
        predicted: `[T, 2]`; rows of NaN are gaps.
        true: `[T, 2]`; NaN, or the label files' -5, if not annotated.
        title: Title above the panels, for example the video's name.
    """
    figure, axes = canvas(2, 1, height=3.8, sharex=True)
    for index, (name, colour) in enumerate((("valence", VALENCE), ("arousal", AROUSAL))):
        axis = axes[index, 0]
        axis.axhline(0, color=GREY, linewidth=0.6)
        if true is not None:
            shown = np.where(np.abs(true[:, index]) <= 1, true[:, index], np.nan)
            axis.plot(time_s, shown, color="black", linewidth=1.1, alpha=0.75, label="true")
        axis.plot(time_s, predicted[:, index], color=colour, linewidth=1.5, label="predicted")
        axis.set_ylim(-1.05, 1.05)
        axis.set_ylabel(name)
        axis.grid(alpha=0.25)
        if true is not None:
            key_above(axis, 2)
    axes[1, 0].set_xlabel("time (s)")
    if title:
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def va_circumplex(values: np.ndarray, error: np.ndarray | None = None) -> Figure:
    """Plot the density of frames in the valence-arousal plane or, with `error`, the mean error there.

    Args:
        values: `[N, 2]` valence and arousal.
        error: `[N]` errors to average in each cell; None to show the number of frames.
    """
    values = np.asarray(values, float).reshape(-1, 2)
    seen = np.isfinite(values).all(axis=1)
    edges = np.linspace(-1, 1, CELLS + 1)
    counts, _, _ = np.histogram2d(values[seen, 0], values[seen, 1], bins=[edges, edges])
    norm: LogNorm | None = LogNorm(1, max(2.0, counts.max()))
    shown, label = np.where(counts, counts, np.nan), "frames"
    if error is not None:
        sums, _, _ = np.histogram2d(
            values[seen, 0], values[seen, 1], bins=[edges, edges], weights=np.asarray(error, float)[seen]
        )
        shown, norm, label = np.where(counts, sums / np.maximum(counts, 1), np.nan), None, "mean error"
    figure, axes = canvas(width=3.9, height=3.3)
    axis = axes[0, 0]
    mesh = axis.pcolormesh(edges, edges, shown.T, cmap=SEQUENTIAL, norm=norm)
    _circumplex_axes(axis)
    figure.colorbar(mesh, ax=axis, label=label, fraction=0.05, pad=0.02)
    return figure


def va_trajectory(values: np.ndarray, time_s: np.ndarray) -> Figure:
    """Plot a path through the valence-arousal plane, coloured by time.

    Args:
        values: `[T, 2]`; rows of NaN interrupt the path.
        time_s: Seconds `[T]`.
    """
    points = np.asarray(values, float).reshape(-1, 1, 2)
    pieces = np.concatenate([points[:-1], points[1:]], axis=1)
    whole = np.isfinite(pieces).all(axis=(1, 2))
    figure, axes = canvas(width=3.9, height=3.3)
    axis = axes[0, 0]
    line = LineCollection(list(pieces[whole]), cmap=SEQUENTIAL, array=np.asarray(time_s)[:-1][whole], linewidths=1.4)
    axis.add_collection(line)
    _circumplex_axes(axis)
    figure.colorbar(line, ax=axis, label="time (s)", fraction=0.05, pad=0.02)
    return figure


def f1_bars(
    f1: Mapping[str, float], *, reference: Mapping[str, float] | None = None, against: str = "chance"
) -> Figure:
    """Plot the F1 of each class or action unit and their mean; marks show a `reference` (chance, another run)."""
    figure, axes = canvas(width=min(WIDE, 0.62 * len(f1) + 1.4), height=2.9)
    axis = axes[0, 0]
    axis.bar(list(f1), list(f1.values()), color=PLAIN, width=0.7)
    for place, value in enumerate(f1.values()):
        axis.text(place, value + 0.015, f"{value:.2f}", ha="center", fontsize=8)
    if reference:
        axis.plot(range(len(f1)), [reference[name] for name in f1], "_", color=MARK, ms=22, mew=2.5, label=against)
    mean = float(np.mean(list(f1.values())))
    axis.axhline(mean, color=GREY, linewidth=1, linestyle="--", label=f"mean {mean:.3f}")
    axis.set_ylim(0, 1.08)
    axis.set_ylabel("F1")
    axis.tick_params(axis="x", rotation=0 if all(len(name) < 6 for name in f1) else 25)
    key_above(axis, 2)
    return figure


def histogram(values: np.ndarray, *, label: str = "", log: bool = False) -> Figure:
    """Plot the distribution of the finite numbers among `[N]` values."""
    values = np.asarray(values, float).ravel()
    values = values[np.isfinite(values)]
    figure, axes = canvas(width=4.5, height=2.6)
    axis = axes[0, 0]
    axis.hist(values, bins=40, color=PLAIN)
    axis.set_xlabel(label)
    axis.set_ylabel("number")
    axis.set_title(f"n = {len(values):,}", loc="right", fontsize=8.5)
    if log:
        axis.set_yscale("log")
    return figure


def reliability(confidence: np.ndarray, correct: np.ndarray) -> Figure:
    """Plot a reliability diagram: how often predictions of each confidence are right (Guo et al. 2017), with the ECE.

    Args:
        confidence: `[N]` probabilities of the predicted classes.
        correct: `[N]` bool.
    """
    confidence, correct = np.asarray(confidence, float).ravel(), np.asarray(correct, float).ravel()
    place = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    filled = counts > 0
    accuracy = np.bincount(place, correct, BINS)[filled] / counts[filled]
    mean = np.bincount(place, confidence, BINS)[filled] / counts[filled]
    ece = float(np.sum(counts[filled] * np.abs(accuracy - mean)) / max(counts.sum(), 1))
    figure, axes = canvas(2, 1, width=4.2, height=4.4, sharex=True, height_ratios=[3, 1])
    upper, lower = axes[:, 0]
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    upper.plot(mean, accuracy, color=PLAIN, marker="o")
    upper.set(ylim=(0, 1.02), xlim=(0, 1), ylabel="share right")
    upper.set_title(f"ECE = {ece:.3f}", loc="right", fontsize=10)
    lower.bar((np.arange(BINS) + 0.5) / BINS, counts, width=0.9 / BINS, color=GREY)
    lower.set(xlabel="confidence", ylabel="frames")
    return figure


def pca_map(features: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Figure:
    """Plot at most 4000 evenly chosen feature vectors on their first two principal components, coloured by label.

    Args:
        features: `[N, D]`.
        labels: `[N]` indices into `names`.
        names: Names of the labels.
    """
    centred = np.asarray(features, np.float64)
    centred = centred - centred.mean(axis=0)
    if min(centred.shape) > 2 and centred.any():
        # An iterative solver finds two components in a hundredth of the time of a full decomposition.
        _, _, components = svds(centred, k=2, rng=np.random.default_rng(0))
    else:  # it needs more than two rows and columns, and fails where all are equal
        components = np.zeros((2, centred.shape[1]))
        found = np.linalg.svd(centred, full_matrices=False)[2][:2][::-1]
        components[2 - len(found) :] = found
    flat = centred @ components[::-1].T
    taken = np.linspace(0, len(flat) - 1, min(4000, len(flat))).astype(int)
    figure, axes = canvas(width=6.2, height=4.4)
    axis = axes[0, 0]
    for number, name in enumerate(names):
        chosen = taken[np.asarray(labels)[taken] == number]
        if len(chosen):
            shade = mpl.colormaps[SEQUENTIAL](number / max(len(names) - 1, 1))
            style: Any = {"color": EXPRESSION_COLOURS.get(name, shade), "marker": MARKERS[number % len(MARKERS)]}
            axis.scatter(*flat[chosen].T, s=9, alpha=0.6, linewidths=0, label=name, **style)
    explained = flat.var(axis=0) / max(float(centred.var(axis=0).sum()), 1e-12)
    axis.set_xlabel(f"first component ({explained[0]:.0%} of variance)")
    axis.set_ylabel(f"second component ({explained[1]:.0%})")
    axis.legend(frameon=False, markerscale=3, fontsize=8.5, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _circumplex_axes(axis: Axes) -> None:
    axis.axhline(0, color=GREY, linewidth=0.6)
    axis.axvline(0, color=GREY, linewidth=0.6)
    angle = np.linspace(0, 2 * np.pi, 200)
    axis.plot(np.cos(angle), np.sin(angle), color=GREY, linewidth=0.6)
    axis.set(xlim=(-1.02, 1.02), ylim=(-1.02, 1.02), xlabel="valence", ylabel="arousal", aspect="equal")
    axis.set_xticks(np.linspace(-1, 1, 5))
    axis.set_yticks(np.linspace(-1, 1, 5))
