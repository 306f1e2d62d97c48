"""Scores of a finished run on other faces."""

import json
from dataclasses import replace

import pytest

from checkpoints.errors import UserError
from finetune.evaluate import Evaluate, main
from finetune.run import main as finetune
from tests.finetune.corpus import TINY, label_of, make_store, rows_of


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated") / "run"
    finetune(replace(TINY, faces=corpus.faces, labels=corpus.labels, encoder=str(corpus.encoder), out=out))
    return out


def test_validation_scores_are_those_of_the_run(run, corpus, tmp_path):
    config = Evaluate(run=run, faces=corpus.faces, labels=corpus.labels, precision="fp32", workers=0,
                      json=tmp_path / "scores.json")  # fmt: skip
    with pytest.raises(UserError, match=r"2 of 2 .* \(such as val0\) taught or chose the encoder .* no other is left"):
        main(config)  # they chose the weights that were kept
    scores = main(replace(config, allow_leak=True))
    finished = json.loads((run / "finished.json").read_text())
    assert {key: finished[key] for key in scores} == scores == json.loads((tmp_path / "scores.json").read_text())


def test_unseen_store(run, tmp_path):
    faces = make_store(tmp_path / "faces", {"x": 10, "train0": 12}, seed=3)
    rows = [f"x,{row['frame']},{label_of('x', row['frame'])}" for row in rows_of("x", 10)]
    (tmp_path / "labels.csv").write_text("\n".join(["video,frame,expression", *rows, "train0,1,0"]) + "\n")
    scores = main(Evaluate(run=run, faces=faces, labels=tmp_path / "labels.csv", split="all", workers=0))
    assert scores["frames"] == 9  # without the face that is missing and the video that was trained on
    assert scores["accuracy"] > 0.6 > scores["majority"]  # nine frames: one more or less is .11


def test_refusals(run, corpus, tmp_path):
    with pytest.raises(UserError, match="not a finished run of finetune"):
        main(Evaluate(run=tmp_path, faces=corpus.faces, labels=corpus.labels))
    (tmp_path / "table.csv").write_text("video,frame,expression\nval0,1,0\n")
    with pytest.raises(UserError, match=r"holds no expression labels .*--split all takes every split"):
        main(Evaluate(run=run, faces=corpus.faces, labels=tmp_path / "table.csv"))
    taught = Evaluate(run=run, faces=corpus.faces, labels=corpus.labels, split="train", workers=0)
    with pytest.raises(UserError, match=r"such as train0\) taught or chose the encoder .* no other is left to score"):
        main(taught)
    assert main(replace(taught, allow_leak=True))["frames"] > 0
