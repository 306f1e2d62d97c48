import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from checkpoints.artifact import write_sealed
from checkpoints.encoder import load_encoder
from checkpoints.errors import UserError
from features.cache import fill_nearest
from preprocessing.views import StillFrames
from temporal.heads import load_head
from temporal.predict import predict_sequence
from tests.wildaffect.inference.conftest import SIZE, make_encoder, make_head
from wildaffect.inference.bundle import write_bundle
from wildaffect.inference.clip_facts import credit, left_unadapted, notes_of
from wildaffect.inference.models import load_models
from wildaffect.inference.predictor import Predictor
from wildaffect.inference.table import COLUMNS, matrix, read_table, rows_of, write_table
from wildaffect.tasks import AUS, EXPRESSIONS
from wildaffect.tasks.predictions import read_predictions
from wildaffect.tasks.priors import Prior


@pytest.fixture(scope="module")
def table(heads, store) -> pa.Table:
    return Predictor(heads, device="cpu").predict_faces(store, "clip")


def test_one_row_per_frame_and_subject(table):
    assert table.column_names == list(COLUMNS)
    keys = list(zip(table["subject"].to_pylist(), table["frame"].to_pylist(), strict=True))
    assert keys == [("", n) for n in range(1, 61)] + [("2", n) for n in range(11, 46)]


def test_values_are_finite_or_there_is_no_face(table):
    face = table["face"].to_numpy(zero_copy_only=False)
    assert face.sum() == 60 - 15 + 35
    for name in ("valence", "arousal", *(f"p_{x}" for x in (*EXPRESSIONS, *AUS)), "x1", "expression", *AUS):
        missing = table[name].is_null().to_numpy(zero_copy_only=False)
        assert np.array_equal(missing, ~face), name
    assert np.abs(matrix(table, ["valence", "arousal"])[face]).max() <= 1
    assert np.allclose(matrix(table, [f"p_{x}" for x in EXPRESSIONS])[face].sum(axis=1), 1, atol=1e-4)


def test_decisions_follow_from_the_probabilities(table):
    rows = [row for row in table.to_pylist() if row["face"]]
    thresholds = np.linspace(0.3, 0.6, 12)
    for row in rows:
        assert row["expression"] == max(EXPRESSIONS, key=lambda name: row[f"p_{name}"])
        for name, threshold in zip(AUS, thresholds, strict=True):
            if abs(row[f"p_{name}"] - threshold) > 1e-4:
                assert row[name] == int(row[f"p_{name}"] > threshold)
    assert len({row[name] for row in rows for name in AUS}) == 2


def test_interpolated_faces_are_said_to_be(table):
    row = table.to_pylist()[4]
    assert row["frame"] == 5 and row["interpolated"] and row["score"] is None and row["x1"] == 15


def test_tables_are_read_back_and_are_prediction_tables(table, tmp_path):
    write_table(table, tmp_path / "clip.csv")
    write_table(table, tmp_path / "clip.parquet")
    assert read_table(tmp_path / "clip.parquet").equals(table)
    tracks = read_predictions(tmp_path / "clip.csv")
    assert set(tracks) == {"clip", "clip_2"} and len(tracks["clip"].frames) == 60
    assert not tracks["clip"].face.all() and np.isfinite(tracks["clip"].values["va"]).all()  # gaps are bridged to score


def test_heads_of_one_task_are_averaged(encoder, store, tmp_path):
    runs = [make_head(tmp_path / f"va{seed}", "va", [encoder], seed=seed) for seed in (7, 8)]
    one, two, both = (Predictor(paths).predict_faces(store, "clip") for paths in (runs[:1], runs[1:], runs))
    a, b, mean = (matrix(table, ["valence", "arousal"]) for table in (one, two, both))
    assert np.abs(a - b)[np.isfinite(a)].max() > 0.01
    assert np.allclose(mean, (a + b) / 2, atol=2e-5, equal_nan=True)


def test_a_head_that_reads_two_views(tmp_path, store):
    places = [(tmp_path / name, make_encoder(tmp_path / name, seed=seed)) for seed, name in enumerate("ab")]
    run = make_head(tmp_path / "joint", "joint", places, view="eyes_mouth")
    table = rows_of(Predictor(run, device="cpu").predict_faces(store, "clip"), "")
    assert table.column_names == list(COLUMNS)
    face = store.valid[:60]
    faces = StillFrames(store, ["eyes_mouth"], SIZE).__getitems__(np.flatnonzero(face).tolist())["images"][:, 0]
    with torch.inference_mode():
        seen = np.concatenate([encoder(faces).numpy() for _, encoder in places], axis=1)
    features = np.zeros((60, seen.shape[1]), np.float16)
    features[face] = seen
    features = fill_nearest(features, face, np.arange(60))
    expected = predict_sequence(load_head(run), features, face, rate=25)
    assert np.allclose(matrix(table, ["valence", "arousal"])[face], expected["va"][face], atol=2e-3)
    swapped = np.roll(features, places[0][1].dim, axis=1)  # the order of the encoders matters
    other = predict_sequence(load_head(run), swapped, face, rate=25)
    assert np.abs(other["va"] - expected["va"]).max() > 0.01


def test_the_models_say_where_they_come_from(heads):
    models = load_models(heads)
    assert models.synthetic and [task.name for task in models.tasks] == ["va", "expr", "au"]
    assert models.sources[0]["name"] == "va" and models.sources[0]["scores"] == {
        "va": {"score": 0.4, "chance": 0.1, "videos": 2}
    }
    (encoder,) = models.sources[0]["encoders"]
    assert encoder == {"stage": "pretrain", "labelled_videos": {"expr": 2}, "chosen_on": {"expr": 1}}
    assert "score 0.400 (chance 0.100) on 2 videos used neither for training nor for selection" in credit(models)
    assert len(models.embedders) == 1
    assert models.fingerprint != load_models(heads[:2]).fingerprint


@pytest.mark.parametrize(
    "change",
    [{"validation": None, "held_out": {"va": {"score": 0.9}}}, {"scored_on": ["e", "f"]}, {"scored_on": []}],
)
def test_no_output_credits_a_score_on_what_taught_or_chose(encoder, tmp_path, change):
    """`e` chose the encoder, which the head's own header need not say: the encoder does."""
    run = make_head(tmp_path / "va", "va", [encoder])
    header = json.loads((run / "head" / "config.json").read_text())
    header["record"] |= change
    write_sealed(run / "head" / "config.json", header)
    models = load_models([run])
    assert models.sources[0]["scores"] == {}
    assert credit(models).endswith("scored on no videos kept out of training and selection")
    write_bundle([run], tmp_path / "bundle")
    assert "0.4" not in (tmp_path / "bundle" / "README.md").read_text()


def test_an_encoder_that_was_trained_again_is_refused(tmp_path):
    place = tmp_path / "encoder"
    run = make_head(tmp_path / "va", "va", [(place, make_encoder(place))])
    make_encoder(place, seed=3)
    with pytest.raises(UserError, match="not the one that the head"):
        load_models([run])
    place.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="wildaffect export"):
        load_models([run])


def test_no_heads_anywhere(monkeypatch, tmp_path):
    monkeypatch.delenv("WILDAFFECT_HEADS", raising=False)
    monkeypatch.setattr("wildaffect.inference.models.DEFAULT", tmp_path)
    with pytest.raises(UserError, match="--heads"):
        load_models()


def test_default_heads_come_from_the_environment(monkeypatch, heads):
    monkeypatch.setenv("WILDAFFECT_HEADS", ":".join(map(str, heads)))
    assert len(load_models().heads) == 3


def test_a_video_nobody_is_in(heads, tmp_path):
    from preprocessing.faces import FacesStore
    from tests.wildaffect.inference.conftest import face_rows, write_store

    path = write_store(tmp_path / "faces", face_rows("empty", "", range(1, 31), set(range(1, 31))))
    table = Predictor(heads).predict_faces(FacesStore(path), "empty")
    assert table.num_rows == 30 and not any(table["face"].to_pylist())
    assert table["valence"].null_count == 30 and math.isclose(table["time_s"].to_pylist()[-1], 29 / 25)


def with_priors(expr: Path, encoder, tmp_path: Path) -> Predictor:
    """Two heads of expressions with different priors; neither learnt the last class."""
    predictor = Predictor([expr, make_head(tmp_path / "second", "expr", [encoder], seed=9)])
    for number, head in enumerate(predictor.models.heads):
        trained = np.roll([0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05], number).tolist()
        head.prior = Prior((*trained, 0.0), (*trained, 0.0), (*np.log(trained).tolist(), -9.0))
    return predictor


@pytest.mark.parametrize("adapt", ["person", "clip"])
def test_each_head_is_adapted_by_its_own_prior(heads, encoder, store, tmp_path, adapt):
    predictor = with_priors(heads[1], encoder, tmp_path)
    predictor.models.adapt = adapt
    columns = [f"p_{name}" for name in EXPRESSIONS]
    both = matrix(predictor.predict_faces(store, "clip"), columns)
    alone = []
    for head in list(predictor.models.heads):
        predictor.models.heads = [head]
        alone.append(matrix(predictor.predict_faces(store, "clip"), columns))
    assert np.nanmax(np.abs(alone[0] - alone[1])) > 0.01
    assert np.nanmax(np.abs(both - (alone[0] + alone[1]) / 2)) < 1e-4


def test_whom_nothing_is_adapted_to_is_said(heads, encoder, store, tmp_path):
    predictor = with_priors(heads[1], encoder, tmp_path)
    table = predictor.predict_faces(store, "clip")
    assert left_unadapted(predictor.models, table) == []
    predictor.models.adapt = "person"
    assert left_unadapted(predictor.models, table) == []
    (said,) = left_unadapted(predictor.models, table.slice(0, 80))  # 60 of the first, 20 of the second, at 25 a second
    assert said.endswith("fewer than ten frames: person 2.")


def test_a_share_that_has_no_effect_is_said(heads, encoder, tmp_path):
    predictor = with_priors(heads[1], encoder, tmp_path)
    (tmp_path / "own.json").write_text(json.dumps({"Neutral": 1, EXPRESSIONS[-1]: 3}))
    predictor.models.under(tmp_path / "own.json", "none")
    (said,) = [note for note in notes_of(predictor.models) if "under the prior own.json" in note]
    assert f"Heads that did not learn {EXPRESSIONS[-1]} ignore the share of it." in said
    assert f"{EXPRESSIONS[-1]} 0.75" not in said and "Neutral 0.25" in said


@pytest.mark.parametrize(
    "options, said",
    [
        ({"adapt": "persons"}, r"adapt 'persons': expected one of none, person, clip"),
        ({"runtime": "ONNX"}, r"runtime 'ONNX': expected one of torch, onnx"),
        ({"prior": "p.yaml"}, r"--prior p.yaml: expected stated, trained, uniform or a JSON file"),
    ],
)
def test_an_option_that_does_not_exist_is_refused(heads, encoder, tmp_path, monkeypatch, options, said):
    models = with_priors(heads[1], encoder, tmp_path).models
    monkeypatch.setattr("wildaffect.inference.predictor.load_models", lambda *_: models)
    with pytest.raises(UserError, match=said):
        Predictor(heads[1], **options)


def test_outputs_hold_what_the_bundle_says_of_its_heads(heads, store, tmp_path):
    data, scores = ["Other was learnt from <nothing> else."], ["AU1 was checked on 264 faces."]
    write_bundle(heads, tmp_path / "bundle", data=data, scores=scores)
    (made,) = Predictor(tmp_path / "bundle").predict(store, progress=False)
    said = json.loads(parquet.read_schema(made.save(tmp_path / "table.parquet")).metadata[b"wildaffect"])
    assert said["about_heads"] == [*data, *scores]
    page = made.report(tmp_path / "report.html").read_text()
    assert "About these heads" in page and "learnt from &lt;nothing&gt; else" in page and scores[0] in page
    (plain,) = Predictor(heads).predict(store, progress=False)
    assert "About these heads" not in plain.report(tmp_path / "plain.html").read_text()


def test_synthetic_labels_of_an_encoder_are_said_to_be(tmp_path):
    place = tmp_path / "made"
    make_encoder(place, synthetic=False)
    header = json.loads((place / "config.json").read_text())
    header["provenance"] |= {"labelled_videos": {"au": ["x"], "expr": ["a", "b"]}, "synthetic_labels": ["au"]}
    write_sealed(place / "config.json", header)
    said = credit(load_models([make_head(tmp_path / "va", "va", [(place, load_encoder(place))])]))
    assert "1 synthetic videos labelled with action units, 2 videos labelled with expression" in said
