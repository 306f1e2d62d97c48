import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image

from wildaffect.report.page import Cards, Figure, Note, Section, Table, jpeg, png, render_page, write_page

VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """Checks that tags nest and collects what a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.cells: list[str] = []
        self.classes: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        values = dict(attrs)
        self.sources += [values["src"]] if "src" in values else []
        self.links += [values["href"]] if "href" in values else []
        self.classes += [values["class"]] if "class" in values else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def test_page_is_whole_and_needs_nothing_from_outside(tmp_path: Path):
    sections = [
        Section("Numbers", ["text", Table(["what", "score", "n"], [["a", 0.51234, 3000], ["b", None, 2]], "Scores")]),
        Section("Pictures", [Figure(PICTURE, "a picture"), Figure(jpeg(PICTURE), "a photo", width=90)]),
        Section("Faces", [Cards([Figure(jpeg(PICTURE), "one\nfirst", 96), Figure(jpeg(PICTURE))], "Two faces")]),
        Section("Remarks", [Note("mind the gap", "warning"), Markup("<svg></svg>")]),
    ]
    write_page(tmp_path / "deep" / "page.html", "Title", sections, note="synthetic")
    text = (tmp_path / "deep" / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.links == ["#s1", "#s2", "#s3", "#s4"]
    kinds = [source.split(",")[0].removeprefix("data:image/") for source in page.sources]
    assert kinds == ["png;base64", *["jpeg;base64"] * 3]
    assert "Two faces" in text and "<figcaption>one\nfirst</figcaption>" in text and "cards" in page.classes
    assert "http" not in text and "url(" not in text and "@import" not in text
    embedded = Image.open(io.BytesIO(base64.b64decode(page.sources[0].split(",")[1])))
    assert np.array_equal(np.asarray(embedded), PICTURE)
    assert page.cells == ["a", "0.512", "3,000", "b", "\u2013", "2"]
    assert page.classes.count("warning") == 2
    assert "<svg></svg>" in text


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x>', "a & b"])
def test_text_is_escaped_everywhere(hostile: str):
    blocks = [hostile, Table([hostile], [[hostile]], hostile), Note(hostile), Figure(PICTURE, hostile)]
    text = render_page(hostile, [Section(hostile, blocks)], note=hostile)
    assert hostile not in text
    assert Page(text).sources == [Figure(PICTURE).source]


def test_same_content_gives_the_same_file():
    from wildaffect.report.figures import histogram

    def text() -> str:
        return render_page("t", [Section("s", [Figure(histogram(np.arange(9.0)), "h")])])

    assert text() == text()


def test_png_keeps_grey_pictures():
    grey = PICTURE[..., 0]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(grey)))), grey)
