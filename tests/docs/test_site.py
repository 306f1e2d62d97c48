"""The documentation site builds without a warning, and holds what it should."""

from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

from tests.docs.commands import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as `make docs` does; a dead link or a page without a place in the menu is an error."""
    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(folder)))
    return folder


def test_pages_of_the_root_are_there(site):
    start = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="inference.html">inference.md</a>' in start and 'href="docs/' not in start
    assert "Unreleased" in (site / "changelog.html").read_text(encoding="utf-8")
    assert "make lint" in (site / "contributing.html").read_text(encoding="utf-8")


def test_the_api_comes_from_docstrings(site):
    page = (site / "api.html").read_text(encoding="utf-8")
    for name in ("predict", "predict_many", "stream", "from_pretrained", "to_pandas", "save_video", "push_to_hub"):
        assert f"{name}" in page
    assert "Frames per second, for frames." in page  # an argument's description


def test_the_notebook_is_shown_with_its_results(site):
    assert "data:image/png" in (site / "notebooks" / "clip_to_curves.html").read_text(encoding="utf-8")


def test_nothing_is_loaded_from_outside(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert 'src="http' not in text and 'rel="stylesheet" href="http' not in text, page.name
