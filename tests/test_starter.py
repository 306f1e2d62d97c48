"""The command that makes the starter weights, on drawn faces in place of the data sets."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import starter
import starter_card
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


def test_intervals_are_over_the_classes_of_the_whole_set():
    """A class of few faces is missing in some draws and below `least` in many, and is averaged in all of them."""
    truth = np.array([0] * 60 + [1] * 2 + [4] * 6)
    answered = truth.copy()
    answered[[*range(50, 60), 60, 62, 63]] = 5
    found = starter_scores.with_intervals(answered, truth, least=1)
    for key in ("accuracy", "macro_f1"):
        low, high = found[f"{key}_95"]
        assert low < found[key] < high
    assert [*found["f1_95"]] == ["Neutral", "Anger", "Happiness"]
    assert found["f1_95"]["Anger"][0] == 0 and found["f1_95"]["Anger"][1] == 1
    centre = np.mean([sum(found["f1_95"][name]) / 2 for name in found["f1"]])
    assert np.mean(found["macro_f1_95"]) == pytest.approx(centre, abs=0.1)


def test_a_hard_class_of_few_faces_lowers_every_draw():
    """With fewer than `least` faces in a draw it is still averaged: no draw is better than the other two classes."""
    truth = np.repeat([0, 1, 4], [100, 6, 80])
    found = starter_scores.with_intervals(np.where(truth == 1, 5, truth), truth)
    assert found["macro_f1"] == pytest.approx(2 / 3)
    assert found["macro_f1_95"] == pytest.approx([2 / 3] * 2)
    assert found["f1_95"]["Anger"] == [0, 0]


def test_a_set_without_large_classes_says_so():
    scores = starter_scores.with_intervals(np.array([0, 4, -1]), np.array([0, 4, 4]))
    assert scores["macro_f1"] is None and scores["macro_f1_95"] is None and scores["f1_95"] == {}
    smiles = {"faces": 2, "found": 0.5, "auc_happiness": None, "auc_valence": 0.9234}
    first, second = starter_scores.score_lines({"own": scores | {"found": 2 / 3}, "London": smiles})
    assert "macro F1 -; F1: none, since no class has 6 faces" in first and "accuracy .667 [" in first
    assert "50.0% found" in second and "AUC - by p(Happiness), .923 by derived valence" in second


def test_score_lines_have_an_interval_for_every_class():
    truth = np.repeat([0, 4], 10)
    answered = np.where(np.arange(20) % 5 == 0, 0, truth)
    (line,) = starter_scores.score_lines({"own": starter_scores.with_intervals(answered, truth) | {"found": 1.0}})
    assert line.count("[") == 4 and "Happiness .89 [" in line


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
    assert share == pytest.approx(starter_card.SHOWN["AU12"], abs=0.011)


def test_a_missing_data_set_is_named(tmp_path):
    with pytest.raises(UserError, match="has no ferplus"):
        starter.main(starter.Starter(data=tmp_path, out=tmp_path / "out"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",val", ",test", "no picture of muxspace of split val"),
        (",train", ",test", "no picture of muxspace of split train"),
        ("61.jpg,happiness", "61.jpg,neutral", "no picture of london as happiness"),
    ],
)
def test_missing_labels_are_named_before_any_work(tmp_path, old, new, said):
    write_data(tmp_path)
    path = tmp_path / "manifest.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=said):
        starter.main(starter.Starter(data=tmp_path, out=tmp_path / "out"))
    assert not (tmp_path / "out" / "faces").exists()


def test_votes_that_cannot_be_used_are_named(tmp_path):
    write_data(tmp_path)
    path = tmp_path / "ferplus" / "validation.parquet"
    table = pq.read_table(path)
    tied = {name: [5] * table.num_rows for name in starter_scores.VOTES}
    for name, column in tied.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(column))
    pq.write_table(table, path)
    with pytest.raises(UserError, match="no face has a class"):
        starter_scores.check_labels(tmp_path)
    pq.write_table(table.drop_columns(["NF"]), path)
    with pytest.raises(UserError, match=r"lacks the column\(s\) NF"):
        starter_scores.check_labels(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="has no validation"):
        starter_scores.check_labels(tmp_path)


def test_portraits_that_were_not_found_are_left_out(tmp_path):
    """Their features are fillers."""
    encoder = make_encoder(tmp_path / "encoder", synthetic=False)
    runs = {task: make_head(tmp_path / task, task, [(tmp_path / "encoder", encoder)]) for task in ("expr", "va")}
    place, rng = tmp_path / "features" / "london", np.random.default_rng(0)
    for id, valid in (("a", True), ("b", True), ("c", False)):
        features = rng.normal(size=(1, encoder.dim))
        cache.write_features(place, id, features=features, valid=[valid], time_s=[np.nan], first_frame=1)
    heads = {task: load_head(run) for task, run in runs.items()}
    name = heads["va"].inputs[0].feature_id
    cache.finish_cache(place, made_by="t", config={}, parents={}, feature_id=name, dim=encoder.dim)
    labels = {"a": "happiness", "b": "neutral", "c": "neutral", "d": "neutral", "e": "sadness"}
    rows = ["path,label,split", *(f"london/{id}.jpg,{label},train" for id, label in labels.items())]
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    found = starter_scores.london(tmp_path, tmp_path, heads["expr"], heads["va"])
    assert (found["faces"], found["found"]) == (4, 0.5)
    assert found["auc_valence"] in (0.0, 1.0)  # one against one


def test_from_pictures_to_a_bundle_that_predicts(tmp_path, capsys):
    """Learns nothing in so few steps; every stage runs and says what it is."""
    write_data(tmp_path)
    config = starter.Starter(data=tmp_path, out=tmp_path / "out", workers=1, epochs=1.0)
    bundle = config.out / "bundle"
    summary = starter.main(config)
    said = capsys.readouterr().out
    assert "near-duplicates of a validation face: left out" in said
    assert f"wildaffect predict CLIP --heads {bundle}" in said
    scores = summary["scores"]
    assert scores["FER+ validation"]["faces"] == 8
    assert scores["muxspace val"]["faces"] == 4
    assert 0 <= scores["London"]["auc_valence"] <= 1
    assert sum(file.stat().st_size for file in bundle.rglob("*.safetensors")) < 12e6

    header = read_json(bundle / "bundle.json")
    assert header["kinds"] == {"va": "derived", "expr": "real"}
    card = (bundle / "README.md").read_text()
    assert "Russell and Mehrabian" in card and "FER+ validation (8 faces" in card
    assert "Action units are learnt" not in card and "Withheld" not in card
    face(70, 160).save(tmp_path / "face.png")
    table = Predictor(bundle).predict(tmp_path / "face.png", progress=False).table
    assert table["face"].to_pylist() == [True]
    assert sum(table[f"p_{name}"][0].as_py() for name in EXPRESSIONS) == pytest.approx(1, abs=1e-3)
    assert str(starter.main(config)["scores"]) == str(scores)  # nothing is trained again; NaN is as NaN
    with pytest.raises(UserError, match="has no head for action units"):
        starter_card.main(starter_card.Card(bundle, config.out / "summary.json", tmp_path / "n", units=tmp_path / "u"))
    starter_card.main(starter_card.Card(bundle, config.out / "summary.json", tmp_path / "new"))
    again = read_json(tmp_path / "new" / "bundle.json")
    assert (again["data"], again["scores"]) == (header["data"], header["scores"])

    with pytest.raises(UserError, match="new holds other weights: name a folder"):
        starter.main(replace(config, bundle=tmp_path / "new"))
