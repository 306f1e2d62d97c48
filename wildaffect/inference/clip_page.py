"""The page of a clip: its predictions with zoomable time lines, the heads that made them, and how far to trust them."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from preprocessing.faces import FacesStore
from wildaffect.inference.clip_facts import MISUSE, MODEL_COLUMNS, Facts, describe_kinds, describe_models
from wildaffect.inference.models import Models
from wildaffect.inference.table import (
    COLUMNS,
    flags,
    matrix,
    present_tasks,
    rows_of,
    subject_name,
    subjects,
    times_of,
    units_of,
)
from wildaffect.report.figures import va_trajectory
from wildaffect.report.formats import duration, number
from wildaffect.report.page import PLANE, Cards, Figure, Note, Section, Table, write_page
from wildaffect.report.palette import AROUSAL, EXPRESSION_COLOURS, VALENCE
from wildaffect.tasks import EXPRESSIONS

PEOPLE = 6
"""People with thumbnails and a trajectory of their own; the time lines show everyone."""


def write_report(
    path: Path, name: str, table: pa.Table, store: FacesStore, models: Models, facts: Facts, warnings: Sequence[str]
) -> None:
    """Write the page of a clip, the video `name` of its faces store, to an HTML file."""
    people = subjects(table)
    sections = [
        Section(
            "What this is",
            [*(Note(text, "warning") for text in warnings), *describe_kinds(models), MISUSE, _facts_table(facts)],
        ),
        Section("Time lines", [time_lines(table)]),
    ]
    faces = [subject for subject in people if flags(rows_of(table, subject), "face").any()]
    sections += [
        Section(f"Peaks: {subject_name(subject)}", [_peaks(table, subject, store, name)]) for subject in faces[:PEOPLE]
    ]
    if "valence" in table.column_names and facts.frames > 1 and faces:
        planes = [_plane(table, subject) for subject in faces[:PEOPLE]]
        text = "Paths through the plane. They are interrupted where a face is missing."
        sections.append(Section("Valence and arousal", [Cards(planes, text)]))
    heads = Table(
        MODEL_COLUMNS,
        describe_models(models),
        "Scores of the heads, not of this clip, on videos used neither to train nor to select them.",
    )
    columns = Table(("column", "meaning"), [(column, COLUMNS[column]) for column in table.column_names])
    about = [Section("About these heads", lines, folded=True)] if (lines := [*models.data, *models.scores]) else []
    sections += [Section("The heads", [heads]), *about, Section("Columns of the tables", [columns], folded=True)]
    write_page(path, f"{name}: predictions per frame", sections)


def time_lines(table: pa.Table) -> Markup:
    """Curves, expression ribbon and action units over time. They can be zoomed in any browser, without a network."""
    here = Path(__file__).parent
    data = json.dumps(chart_data(table), separators=(",", ":")).replace("<", "\\u003c")
    html = (here / "timeline.html").read_text(encoding="utf-8")
    script = (here / "timeline.js").read_text(encoding="utf-8")
    return Markup(html.replace("{{ data }}", data).replace("{{ script }}", script))


def chart_data(table: pa.Table) -> dict[str, Any]:
    """The data for the script: little-endian arrays in base64.

    A gap is -32768, or 255 in arrays of bytes. The bits of `active` are the decisions about the AUs.
    """
    tasks = {task.name for task in present_tasks(table)}
    people, units = [], units_of(table)
    for subject in subjects(table):
        rows = rows_of(table, subject)
        person: dict[str, Any] = {"name": subject_name(subject), "time": _pack(times_of(rows), "<f4")}
        if "va" in tasks:
            for name in ("valence", "arousal"):
                values = matrix(rows, [name])[:, 0]
                person[name] = _pack(np.where(np.isfinite(values), np.round(values * 10000), -32768), "<i2")
        if "expr" in tasks:
            place = {label: number for number, label in enumerate(EXPRESSIONS)}
            labels = rows["expression"].to_pylist()
            person["expression"] = _pack(np.array([place.get(label, 255) for label in labels]), "u1")
        if "au" in tasks:
            values = matrix(rows, [f"p_{name}" for name in units])
            person["aus"] = _pack(np.where(np.isfinite(values), np.round(values * 254), 255), "u1")
            person["active"] = _pack((matrix(rows, units) == 1) @ (1 << np.arange(len(units))), "<u2")
        people.append(person)
    colours = [[name, EXPRESSION_COLOURS[name]] for name in EXPRESSIONS]
    return {"people": people, "expressions": colours, "aus": units, "valence": VALENCE, "arousal": AROUSAL}


def peaks_of(table: pa.Table) -> list[tuple[int, str]]:
    """Pick the rows of one subject's table that are worth a look, in order of time, each with the reasons.

    They are the highest and lowest valence and arousal and the most confident frame of each expression.
    """
    wanted: dict[int, list[str]] = {}
    names = set(table.column_names)
    if "valence" in names and flags(table, "face").any():
        for name in ("valence", "arousal"):
            values = matrix(table, [name])[:, 0]
            wanted.setdefault(int(np.nanargmax(values)), []).append(f"highest {name} {np.nanmax(values):+.2f}")
            wanted.setdefault(int(np.nanargmin(values)), []).append(f"lowest {name} {np.nanmin(values):+.2f}")
    if "expression" in names:
        labels = np.array(table["expression"].to_pylist(), object)
        for label in EXPRESSIONS:
            rows = np.flatnonzero(labels == label)
            if not len(rows):
                continue
            sure = matrix(table, [f"p_{label}"])[rows, 0]
            wanted.setdefault(int(rows[sure.argmax()]), []).append(f"surest {label} {sure.max():.2f}")
    return [(row, ", ".join(reasons)) for row, reasons in sorted(wanted.items())]


def _peaks(table: pa.Table, subject: str, store: FacesStore, video: str) -> Cards:
    rows = rows_of(table, subject)
    time_s = times_of(rows)
    first = next(s.start for s in store.sequences() if (s.video, s.subject) == (video, subject))
    cards = []
    for row, reasons in peaks_of(rows):
        text = f"{reasons}\n{time_s[row]:,.2f} s, frame {number(rows['frame'][row].as_py())}"
        cards.append(Figure(next(store.pictures(first + row, 1))[0] or b"", text, width=128))
    return Cards(cards)


def _plane(table: pa.Table, subject: str) -> Figure:
    rows = rows_of(table, subject)
    return Figure(va_trajectory(matrix(rows, ["valence", "arousal"]), times_of(rows)), subject_name(subject), PLANE)


def _facts_table(facts: Facts) -> Table:
    shown = {
        "frames": number(facts.frames),
        "length": duration(facts.seconds),
        "frames per second": number(facts.rate) if facts.rate else "–",
        "people": number(facts.people),
        "frames with a face": f"{facts.with_face:.0%}",
        "with the main person": f"{facts.with_main_person:.0%}",
        "interpolated faces": f"{facts.interpolated:.0%}",
        "face size": f"{facts.face_size:.0f} px",
    }
    return Table(("", ""), list(shown.items()))


def _pack(values: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode()
