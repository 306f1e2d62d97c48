"""The command that makes the starter weights, on drawn faces in place of the data sets."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import starter
import starter_scores
from checkpoints.artifact import read_json
from checkpoints.errors import UserError
from tests.drawn_data import face, write_data
from wildaffect import Predictor
from wildaffect.tasks import EXPRESSIONS


def test_scores_by_hand():
    truth = np.array([0, 0, 0, 4, 4, 1])
    answered = np.array([0, 0, 4, 4, -1, 1])
    found = starter_scores.scores_of(answered, truth, least=2)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["f1"] == pytest.approx({"Neutral": 0.8, "Happiness": 0.5})
    assert found["macro_f1"] == pytest.approx(0.65)


def test_votes_need_one_winner(tmp_path):
    names = [*starter_scores.VOTES, "unknown", "NF"]
    rows = {"clear": {"sadness": 6, "neutral": 4}, "tie": {"anger": 5, "disgust": 5}, "none": {"unknown": 6, "fear": 4}}
    table = {name: [votes.get(name, 0) for votes in rows.values()] for name in names}
    pq.write_table(pa.table({"video": [*rows], "split": ["train"] * 3, **table}), tmp_path / "labels.parquet")
    assert starter_scores.unique_votes(tmp_path / "labels.parquet") == {"clear": starter_scores.VOTES.index("sadness")}
    assert starter_scores.unique_votes(tmp_path / "labels.parquet", {"tie"}) == {}


def test_the_area_counts_ties_half():
    assert starter_scores.auc(np.array([0.2, 0.5, 0.9]), np.array([0.1, 0.5])) == pytest.approx(4.5 / 6)
    assert starter_scores.auc(np.array([]), np.array([0.1])) is None


def test_a_missing_data_set_is_named(tmp_path):
    with pytest.raises(UserError, match="has no ferplus"):
        starter.main(starter.Starter(data=tmp_path, out=tmp_path / "out"))


def test_from_pictures_to_a_bundle_that_predicts(tmp_path, capsys):
    """Learns nothing in so few steps; every stage runs and says what it is."""
    write_data(tmp_path)
    config = starter.Starter(data=tmp_path, out=tmp_path / "out", bundle=tmp_path / "bundle", workers=1, epochs=1.0)
    summary = starter.main(config)
    assert "near-duplicates of a validation face: left out" in capsys.readouterr().out
    scores = summary["scores"]
    assert scores["FER+ validation"]["faces"] == 8
    assert scores["muxspace val"]["faces"] == 4
    assert 0 <= scores["London"]["auc_valence"] <= 1
    assert sum(file.stat().st_size for file in config.bundle.rglob("*.safetensors")) < 12e6

    header = read_json(config.bundle / "bundle.json")
    assert header["kinds"] == {"va": "derived", "expr": "real"}
    card = (config.bundle / "README.md").read_text()
    assert "Russell and Mehrabian" in card and "FER+ validation (8 faces" in card
    face(70, 160).save(tmp_path / "face.png")
    table = Predictor(config.bundle).predict(tmp_path / "face.png", progress=False).table
    assert table["face"].to_pylist() == [True]
    assert sum(table[f"p_{name}"][0].as_py() for name in EXPRESSIONS) == pytest.approx(1, abs=1e-3)
    assert str(starter.main(config)["scores"]) == str(scores)  # nothing is trained again; NaN is as NaN
