"""Self-contained HTML pages: one file that can be mailed and read offline, on a laptop or a phone."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from matplotlib.figure import Figure as Drawing
from PIL import Image

from checkpoints.artifact import atomic_file
from wildaffect.report.formats import text_of

PLANE, HALF = 300, 460
"""Widths of figures in CSS pixels of which three, or two, fit side by side."""
SYNTHETIC_NOTE = (
    "Synthetic data: everything here was measured on drawn or rendered faces (SynthWild). The numbers say how the "
    "software behaves, but nothing about real people, and must not be compared with Aff-Wild2 numbers."
)


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        header: Column names.
        rows: Cells, shown by :func:`wildaffect.report.formats.text_of`.
        caption: What the table shows.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture with a caption.

    Attributes:
        image: A matplotlib figure, an RGB or grey uint8 array `[H, W(, 3)]`, or PNG/JPEG bytes.
        caption: What it shows; also the alternative text for screen readers.
        width: Maximum width in CSS pixels; 0 for the width of the page.
    """

    image: Drawing | np.ndarray | bytes
    caption: str = ""
    width: int = 0

    @property
    def source(self) -> str:
        """The picture as a `data:` URL."""
        data = self.image if isinstance(self.image, bytes) else png(self.image)
        kind = "jpeg" if data.startswith(b"\xff\xd8") else "png"
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


@dataclass(frozen=True)
class Note:
    """A highlighted remark: `kind` is `note` or `warning`."""

    text: str
    kind: Literal["note", "warning"] = "note"


@dataclass(frozen=True)
class Cards:
    """Small figures side by side, as many to a line as fit, below a common caption."""

    figures: Sequence[Figure]
    caption: str = ""


Block = str | Markup | Table | Figure | Cards | Note


@dataclass(frozen=True)
class Section:
    """A titled part of a page.

    Attributes:
        title: Heading, also listed at the top of the page.
        blocks: Paragraphs (`str`, escaped), tables, figures, cards, notes, or finished HTML (`markupsafe.Markup`).
        folded: Show only the title until it is clicked.
    """

    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)
    folded: bool = False


def write_page(path: Path, title: str, sections: Sequence[Section], *, note: str = "") -> None:
    """Write one self-contained HTML file, atomically; `note` is a warning at the top, such as `SYNTHETIC_NOTE`."""
    with atomic_file(Path(path)) as temporary:
        temporary.write_text(render_page(title, sections, note=note), encoding="utf-8")


def render_page(title: str, sections: Sequence[Section], *, note: str = "") -> str:
    """Render the HTML that :func:`write_page` writes."""
    return _template().render(title=title, sections=sections, note=note, colours=Markup(colours()))


@cache
def colours() -> str:
    """The style sheet that names the colours of pages, light and dark as the reader's system has it."""
    return (Path(__file__).parent / "colours.css").read_text(encoding="utf-8").strip()


def png(image: Drawing | np.ndarray) -> bytes:
    """Encode a matplotlib figure or a uint8 array `[H, W(, 3)]` (RGB) as PNG."""
    buffer = io.BytesIO()
    if isinstance(image, np.ndarray):
        Image.fromarray(image).save(buffer, format="png", optimize=True)
    else:
        image.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def jpeg(image: np.ndarray) -> bytes:
    """Encode a uint8 array `[H, W(, 3)]` (RGB) as JPEG, for photographs and thumbnails."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="jpeg", quality=85)
    return buffer.getvalue()


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = text_of
    environment.tests["number"] = lambda value: isinstance(value, int | float | np.number)
    environment.filters["kind"] = lambda block: type(block).__name__.lower()
    return environment.get_template("page.html")
