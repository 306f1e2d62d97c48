"""The still picture of a clip's predictions: curves, expression ribbon, action units."""

from textwrap import wrap
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from wildaffect.inference.table import matrix, present_tasks, rows_of, times_of, units_of
from wildaffect.report.figures import canvas, key_above
from wildaffect.report.palette import AROUSAL, EXPRESSION_COLOURS, GREY, SEQUENTIAL, VALENCE
from wildaffect.tasks import EXPRESSIONS

HEIGHTS = {"va": 2.0, "expr": 0.8, "au": 2.4}


def overview(table: pa.Table, subject: str, title: str, origin: str = "") -> Figure:
    """Plot everything that is predicted for one subject over time; frames without a face are blank.

    The small print below the panels, `origin`, names the heads.
    """
    rows = rows_of(table, subject)
    time_s = times_of(rows)
    tasks = [task.name for task in present_tasks(table)]
    heights = [HEIGHTS[name] for name in tasks]
    panels: Any = {"sharex": True, "height_ratios": heights, "subplot_kw": {"facecolor": "#f4f5f7"}}
    figure, axes = canvas(len(tasks), 1, height=sum(heights) + 0.8, **panels)
    draw = {"va": _curves, "expr": _ribbon, "au": _heat}
    for axis, name in zip(axes[:, 0], tasks, strict=True):
        draw[name](axis, rows, time_s)
    axes[-1, 0].set_xlabel("time (s)")
    if origin:
        figure.supxlabel("\n".join(wrap(origin, 150)), fontsize=6.5, color=GREY, x=0.01, ha="left")
    axes[-1, 0].set_xlim(time_s[0], max(time_s[-1], time_s[0] + 1e-3))
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def _curves(axis: Axes, rows: pa.Table, time_s: np.ndarray) -> None:
    values = matrix(rows, ["valence", "arousal"])
    axis.axhline(0, color=GREY, linewidth=0.6)
    marker = "o" if len(time_s) == 1 else None
    for column, (name, colour) in enumerate((("valence", VALENCE), ("arousal", AROUSAL))):
        axis.plot(time_s, values[:, column], color=colour, linewidth=1.4, label=name, marker=marker)
    axis.set_ylim(-1.05, 1.05)
    key_above(axis, 2)


def _ribbon(axis: Axes, rows: pa.Table, time_s: np.ndarray) -> None:
    names = rows["expression"].to_pylist()
    colours = np.array([to_rgb(EXPRESSION_COLOURS[name]) if name else (1, 1, 1) for name in names])
    axis.pcolorfast(edges_of(time_s), np.arange(2), colours[None])
    axis.set_yticks([])
    axis.set_ylabel("expression", rotation=0, ha="right", va="center")
    shown = [name for name in EXPRESSIONS if name in set(names)]
    patches = [Patch(color=EXPRESSION_COLOURS[name], label=name) for name in shown]
    if patches:
        key_above(axis, 8, handles=patches, loc="lower left", bbox_to_anchor=(0, 1), fontsize=8)


def _heat(axis: Axes, rows: pa.Table, time_s: np.ndarray) -> None:
    units = units_of(rows)
    values = matrix(rows, [f"p_{name}" for name in units])
    rows_up = values.T[::-1]
    image = axis.pcolorfast(edges_of(time_s), np.arange(len(units) + 1), rows_up, cmap=SEQUENTIAL, vmin=0, vmax=1)
    axis.set_yticks(np.arange(len(units)) + 0.5, units[::-1], fontsize=8)
    axis.figure.colorbar(image, ax=axis, fraction=0.02, pad=0.01, label="probability")


def edges_of(time_s: np.ndarray) -> np.ndarray:
    """Where the cells of frames at rising times `[T]` begin and end `[T + 1]`: halfway between neighbours."""
    steps = np.diff(time_s)
    half = (np.median(steps) if len(steps) else 1.0) / 2
    return np.concatenate([[time_s[0] - half], time_s[:-1] + steps / 2, [time_s[-1] + half]])
