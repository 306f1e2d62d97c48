"""All stages on a tiny corpus: `make demo` keeps its promises, and an interruption changes nothing."""

import json
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest

import demo
import finetune.recipes
import temporal.recipes
from checkpoints.encoder import WEIGHTS
from tests.figures import figures_left_out
from wildaffect.training.loop import Loop


@pytest.fixture(scope="module")
def quick():
    """The demo with few steps in each training."""
    text, recipe = finetune.recipes.RECIPES["demo"]
    head_recipe = temporal.recipes.recipe
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "CONTINUED_STEPS", 3)
        patch.setitem(finetune.recipes.RECIPES, "demo", (text, replace(recipe, epochs=1, evaluations=2, log_every=2)))
        patch.setattr(temporal.recipes, "recipe", lambda *names: replace(head_recipe(*names), epochs=2))
        yield patch


@pytest.fixture(scope="module")
def summary(quick, synthwild_tiny, tmp_path_factory):
    pytest.importorskip("facenet_pytorch")
    out = tmp_path_factory.mktemp("demo") / "whole"
    shutil.copytree(synthwild_tiny, out / "corpus")
    with (out.parent / "said.txt").open("w") as said, redirect_stdout(said), figures_left_out():
        demo.main(demo.Demo(out=out, size="tiny", workers=1))
    return out


def test_a_stage_says_which_it_is_and_what_is_left(tmp_path, capsys):
    """At the pace of what is done; what an earlier run did counts."""
    (tmp_path / "stages.json").write_text('{"one": 30.0, "two": 100.0}')
    stages = demo.Stages(tmp_path, {"one": 1, "two": 2, "three": 4})
    assert stages.left("one") == 420 and stages.left("two") == 180
    stages.seconds["two"] = 30.0
    assert stages.run("three", lambda: 5) == 5
    assert capsys.readouterr().out == "\n=== stage 3 of 3: three (about 80 s left in all)\n"


def test_the_last_line_says_where_the_report_is(summary):
    assert (summary.parent / "said.txt").read_text().splitlines()[-1] == f"report: {summary / 'report.html'}"


def test_summary_and_report(summary: Path):
    content = json.loads((summary / "summary.json").read_text())
    assert content["stages"].keys() == demo.MINUTES.keys()
    took = {name: stage["seconds"] for name, stage in content["stages"].items()}
    took.pop("synthwild")  # the corpus was there
    assert all(seconds > 0 for seconds in took.values())
    for task, keys in {"va": {"ccc_valence", "ccc_arousal"}, "expr": set(), "au": set()}.items():
        scores = content["scores"][task]
        assert {"score", "chance", "framewise", "ci_low", "ci_high", *keys} <= set(scores)
        assert -1 <= scores["ci_low"] <= scores["score"] <= scores["ci_high"] <= 1
    page = (summary / "report.html").read_text()
    assert page.count("data:image/png") >= 6
    assert "Synthetic" in page


def test_an_interrupted_demo_ends_with_the_same_scores(summary: Path, quick, tmp_path):
    """Ctrl-C in stage 1 and again in stage 2; everything before stage 1 is reused to save time."""
    out = tmp_path / "again"
    out.mkdir()
    for name in ("corpus", "faces", "unlabelled_faces"):
        shutil.copytree(summary / name, out / name)
    log = Loop._log

    def interrupt_at(step):
        def interrupting(self, *args):
            log(self, *args)
            if self.step >= step:
                raise KeyboardInterrupt

        return interrupting

    for step in (1, demo.CONTINUED_STEPS + 1):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Loop, "_log", interrupt_at(step))
            demo.main(demo.Demo(out=out, size="tiny", workers=1))
    demo.main(demo.Demo(out=out, size="tiny", workers=1))
    first, second = (json.loads((path / "summary.json").read_text())["scores"] for path in (summary, out))
    assert first == second
    for stage in ("pretrain", "finetune"):
        first, second = ((path / stage / "encoder" / WEIGHTS).read_bytes() for path in (summary, out))
        assert first == second
