import doctest
from pathlib import Path

import pytest

from tests.wildaffect.inference.test_clip import TIMES, frames_of, write_clip
from wildaffect.inference.table import COLUMNS

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.filterwarnings("ignore")
def test_python_in_the_docs_runs(heads, tmp_path, monkeypatch):
    pytest.importorskip("facenet_pytorch")
    monkeypatch.chdir(tmp_path)
    names = {"heads": heads, "clip": write_clip(tmp_path / "clip.mp4", TIMES[:12]), "frames_of": frames_of}
    text = (DOCS / "inference.md").read_text(encoding="utf-8")
    test = doctest.DocTestParser().get_doctest(text.replace("```", ""), names, "inference.md", "inference.md", 0)
    assert len(test.examples) >= 8
    assert doctest.DocTestRunner().run(test).failed == 0
    assert {"drawn.mp4", "report.html", "table.csv", "table.json"} <= {path.name for path in tmp_path.iterdir()}


def test_every_column_is_documented():
    text = (DOCS / "inference.md").read_text(encoding="utf-8")
    for name in COLUMNS:
        if not name.startswith(("p_", "AU")):
            assert f"| `{name}` |" in text, name
