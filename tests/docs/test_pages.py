"""The documentation has no dead links and no unfinished text, and its Python code runs."""

import doctest
import re
from pathlib import Path

import pytest

from tests.docs.commands import ROOT

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(page: Path) -> set[str]:
    """Anchors that headings get when the pages are rendered."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(place), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_is_left_to_fill_in(page):
    assert "@@" not in page.read_text(encoding="utf-8")


def test_every_page_is_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES[2:] if f"docs/{page.name}" not in text] == []


def test_the_readme_is_short_and_in_the_order_of_a_new_user():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    steps = ["$ wildaffect predict", "![", "pip install", "from wildaffect import", "95 % intervals", "make demo"]
    steps += ["## Training on Aff-Wild2", "## On a cluster", "## Citation"]
    places = [text.index(step) for step in steps]
    assert places == sorted(places)
    assert text.count("![") == 1
    assert len(text.splitlines()) <= 150


def test_the_arithmetic_of_the_cost_page_is_right():
    text = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8").replace("```", "")
    test = doctest.DocTestParser().get_doctest(text, {}, "cost.md", "cost.md", 0)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0
