"""What the predictor returns: a table for one clip, with its plot, video and report; or several of them."""

import html
import json
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
from matplotlib.figure import Figure

from checkpoints.artifact import write_json
from checkpoints.errors import UserError
from preprocessing.faces import FacesStore
from temporal.predict import thresholds_of
from wildaffect.inference.annotate import annotate_clip
from wildaffect.inference.clip_facts import Facts, credit, facts_of, kinds_of, left_unadapted, warnings_of
from wildaffect.inference.clip_page import write_report
from wildaffect.inference.models import Models
from wildaffect.inference.plots import overview
from wildaffect.inference.progress import Progress
from wildaffect.inference.table import flags, subject_name, subjects, write_table
from wildaffect.report import page

METADATA = "wildaffect"
"""Key of the metadata in the schema of a table (JSON), and so in Parquet files."""
SHOWN = 5
"""Rows, or clips, that a notebook shows."""


class Prediction:
    """The predictions for one clip: one row per frame and person. `len()` counts the rows.

    Attributes:
        clip: Name of the clip.
        table: The rows; `wildaffect.inference.table.COLUMNS` describes the columns. Its schema holds `metadata`.
        store: The faces that were found.
        models: The heads.
        source: The video; None for pictures, frames and faces.
        facts: Facts about the clip.
        warnings: What to know before trusting the numbers.
    """

    def __init__(
        self,
        clip: str,
        table: pa.Table,
        store: FacesStore,
        models: Models,
        *,
        problems: Sequence[str] = (),
        notes: Sequence[str] = (),
        source: Path | None = None,
    ) -> None:
        self.clip, self.store, self.models, self.source = clip, store, models, source
        self.facts: Facts = facts_of(table)
        self.warnings = warnings_of(models, self.facts, list(problems), [*left_unadapted(models, table), *notes])
        self.table = table.replace_schema_metadata({METADATA: json.dumps(self.metadata)})

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """What every output says: clip, version, the heads with their training and scores, facts, warnings."""
        return {
            "clip": self.clip,
            "version": version("wildaffect"),
            "heads": self.models.sources,
            "kinds": self.models.kinds,
            "about_heads": [*self.models.data, *self.models.scores],
            "credit": credit(self.models),
            "facts": self.facts.as_dict(),
            "warnings": self.warnings,
        }

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def to_pandas(self) -> Any:
        """The rows as a `pandas.DataFrame`; its `attrs` hold the metadata."""
        frame = self.table.replace_schema_metadata(None).to_pandas()
        frame.attrs = self.metadata
        return frame

    def plot(self, subject: str = "") -> Figure:
        """Curves, expressions and action units of one person over time; `.savefig(path)` writes it.

        Raises:
            UserError: The clip has no such person.
        """
        if subject not in subjects(self.table):
            raise UserError(f"{self.clip} has no subject {subject!r}: choose one of {subjects(self.table)}")
        who = f", {subject_name(subject)}" if subject else ""
        return overview(self.table, subject, f"{self.clip}{who} ({kinds_of(self.models)})", credit(self.models))

    def save(self, path: Path | str) -> Path:
        """Write the rows: `.parquet`, which holds the metadata, or `.csv`, with the metadata in `.json` beside it.

        Raises:
            UserError: The path ends otherwise.
        """
        path = Path(path)
        if path.suffix not in (".csv", ".parquet"):
            raise UserError(f"{path}: a table is saved as .csv or .parquet")
        write_table(self.table, path)
        if path.suffix == ".csv":
            write_json(path.with_suffix(".json"), self.metadata)
        return path

    def save_video(self, path: Path | str, progress: Progress | None = None) -> Path:
        """Write the clip with the predictions drawn on it, as MP4 with its sound.

        Raises:
            UserError: The clip is not a video file.
        """
        if self.source is None:
            raise UserError(f"{self.clip} is not a video file, so nothing can be drawn on it: predict a video file")
        kinds, origin = kinds_of(self.models), credit(self.models)
        annotate_clip(
            self.source,
            self.table,
            Path(path),
            thresholds=thresholds_of(self.models.heads),
            footer=kinds,
            comment=origin,
            progress=progress,
        )
        return Path(path)

    def report(self, path: Path | str) -> Path:
        """Write a page with warnings, time lines, peaks and the heads: one HTML file that needs no network."""
        write_report(Path(path), self.clip, self.table, self.store, self.models, self.facts, self.warnings)
        return Path(path)

    def __repr__(self) -> str:
        return f"<Prediction {self.clip!r}: {self._summary()}>"

    def _summary(self) -> str:
        facts = self.facts
        length = f"{facts.frames} frames in {facts.seconds:.1f} s" if facts.seconds else f"{facts.frames} frame(s)"
        people = "no face" if not facts.people else "1 person" if facts.people == 1 else f"{facts.people} people"
        values = ""
        if facts.people:
            columns = self.to_pandas()[flags(self.table, "face")]
            shown = [f"mean {name} {columns[name].mean():+.2f}" for name in ("valence", "arousal") if name in columns]
            shown += [f"mostly {columns[name].mode()[0]}" for name in ("expression",) if name in columns]
            values = f"; {', '.join(shown)}"
        return f"{length}, {people}{values}; {kinds_of(self.models)}; {len(self.warnings)} warning(s)"

    def _repr_html_(self) -> str:
        """For notebooks: a line, warnings, the plot, the first rows."""
        said = "".join(f"<li>{html.escape(text)}</li>" for text in self.warnings)
        rows = self.table.slice(0, SHOWN).to_pandas().to_html(index=False, border=0, na_rep="")
        plot = f'<img alt="curves" src="{page.Figure(self.plot()).source}" style="max-width: 100%">'
        return f"<p><b>{html.escape(self.clip)}</b>: {html.escape(self._summary())}</p><ul>{said}</ul>{plot}{rows}"


class Predictions(list[Prediction]):
    """The predictions of several clips: a list, in the order of the clips."""

    def to_pandas(self) -> Any:
        """All rows as one `pandas.DataFrame` with the column `clip` in front."""
        tables = [
            part.table.replace_schema_metadata(None).add_column(0, "clip", pa.array([part.clip] * len(part)))
            for part in self
        ]
        return pa.concat_tables(tables).to_pandas()

    def __repr__(self) -> str:
        lines = [f"\n  {part!r}" for part in self[:SHOWN]]
        more = f"\n  and {len(self) - SHOWN} more" if len(self) > SHOWN else ""
        return f"<{len(self)} predictions:{''.join(lines)}{more}>"

    def _repr_html_(self) -> str:
        """For notebooks."""
        return f"<pre>{html.escape(repr(self))}</pre>"
