"""The command that makes the starter weights, on drawn faces in place of the data sets."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import starter
import starter_scores
import starter_steps
from checkpoints.artifact import read_json
from checkpoints.errors import UserError
from features import cache
from temporal.heads import load_head
from temporal.predict import predict_cached
from tests.drawn_data import face, write_data
from tests.wildaffect.inference.conftest import make_encoder, make_head
from wildaffect import Predictor
from wildaffect.tasks import AUS, EXPRESSIONS


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


def test_calibrated_thresholds_leave_no_score_of_the_old_ones(tmp_path):
    """The thresholds find each action unit in its share of the faces."""
    encoder = make_encoder(tmp_path / "encoder", synthetic=False)
    run = make_head(tmp_path / "rendered", "au", [(tmp_path / "encoder", encoder)])
    head, rng = load_head(run), np.random.default_rng(0)
    ids = [f"face{number}" for number in range(100)]
    for id in ids:
        features = rng.normal(size=(1, encoder.dim))
        cache.write_features(tmp_path / "f", id, features=features, valid=[True], time_s=[np.nan], first_frame=1)
    name = head.inputs[0].feature_id
    cache.finish_cache(tmp_path / "f", made_by="t", config={}, parents={}, feature_id=name, dim=encoder.dim)
    starter_steps.calibrate(run, tmp_path / "au", tmp_path / "f", ids)
    made = load_head(tmp_path / "au")
    assert not made.record["validation"] and made.record["faces"] == "rendered"
    features = cache.FeatureCache(tmp_path / "f")
    values = np.concatenate([predict_cached([made], [features], id, smooth=False)[0]["au"] for id in ids])
    share = (values[:, AUS.index("AU12")] >= made.thresholds[AUS.index("AU12")]).mean()
    assert share == pytest.approx(starter_steps.SHOWN["AU12"], abs=0.011)


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
