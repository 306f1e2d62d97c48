"""The weights that come with the installation, as someone finds them who names no heads."""

import json

import numpy as np
import pytest

from checkpoints.encoder import load_encoder
from checkpoints.errors import UserError
from tests.drawn_data import face
from tests.wildaffect.inference.conftest import make_encoder, make_head
from wildaffect import Predictor
from wildaffect.cli import Export, Predict
from wildaffect.inference import models
from wildaffect.inference.bundle import write_bundle
from wildaffect.inference.clip_facts import credit, describe_kinds, notes_of
from wildaffect.report.card import RENDERED
from wildaffect.tasks import AUS, EXPRESSIONS

pytest.importorskip("facenet_pytorch")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("face") / "face.png"
    face(71, 200).save(path)
    return path


@pytest.fixture(autouse=True)
def no_named_heads(monkeypatch):
    monkeypatch.delenv(models.VARIABLE, raising=False)


def answer(picture, **options):
    frame = Predictor(**options).predict(picture, progress=False).to_pandas()
    return frame[[f"p_{name}" for name in EXPRESSIONS]].to_numpy()[0]


def test_they_say_what_they_learnt_from():
    predictor = Predictor()
    assert predictor.models.kinds == {"expr": "real", "va": "derived", "au": "synthetic"}
    assert not predictor.models.synthetic
    text = " ".join(describe_kinds(predictor.models))
    assert "not comparable with Aff-Wild2" in text
    assert "drawn" not in text and "SynthWild" not in text
    weights = sum(file.stat().st_size for file in models.DEFAULT.rglob("*.safetensors"))
    assert weights < 12e6


def test_the_prior_can_be_named(picture, tmp_path):
    head = next(head for head in Predictor().models.heads if head.prior)
    trained, stated = np.array(head.prior.trained), np.array(head.prior.stated)
    as_trained, as_stated, uniform = (answer(picture, prior=name) for name in ("trained", "stated", "uniform"))
    by_bayes = as_trained * stated / trained
    assert as_stated == pytest.approx(by_bayes / by_bayes.sum(), abs=2e-3)
    happiness = EXPRESSIONS.index("Happiness")
    disgust = EXPRESSIONS.index("Disgust")
    assert uniform[disgust] / uniform[happiness] > as_trained[disgust] / as_trained[happiness]
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"Fear": 1}))
    assert answer(picture, prior=str(own))[EXPRESSIONS.index("Fear")] == pytest.approx(1, abs=1e-3)
    with pytest.raises(UserError, match="--prior often"):
        Predictor(prior="often")


def test_another_prior_is_named_in_every_output(picture, tmp_path):
    (tmp_path / "own.json").write_text(json.dumps({"Fear": 3, "Anger": 1}))
    own = str(tmp_path / "own.json")
    for prior, name, shares in (("uniform", "uniform", "Neutral 0.125,"), (own, "own.json", "Fear 0.75")):
        Predict(clips=(picture,), out=tmp_path / f"of {name}", prior=prior).run()
        made = tmp_path / f"of {name}" / "face"
        header = json.loads((made / "predictions.json").read_text())
        assert header["config"] == {"annotate": True, "prior": name, "adapt": "none"}
        (said,) = [text for text in header["warnings"] if f"under the prior {name} (" in text]
        assert shares in said and "not the stated one, for which their score holds" in said
        assert said in (made / "report.html").read_text(encoding="utf-8")
        assert header["credit"].count("under the stated prior and not adapted") == 1
    adapted = Predictor(adapt="person").models
    assert "Their score is without this." in notes_of(adapted)[0] and "and not adapted" in credit(adapted)
    plain = Predictor(prior="stated").models
    assert notes_of(plain) == [] and "stated prior" not in credit(plain)


@pytest.mark.parametrize("options", [{"prior": "uniform"}, {"adapt": "person"}])
def test_a_prior_without_expressions_is_refused(options):
    with pytest.raises(UserError, match="which no head predicts"):
        Predictor(models.DEFAULT / "heads" / "va", **options)


def test_the_action_units_alone_say_what_they_learnt_from():
    """From rendered faces, and without the score of the head before its thresholds were changed."""
    alone = Predictor(models.DEFAULT / "heads" / "au").models
    assert alone.synthetic and notes_of(alone) == [RENDERED] and alone.sources[0]["scores"] == {}
    assert "synthetic faces (rendered)" in credit(alone) and "score 0" not in credit(alone)
    card = (models.DEFAULT / "heads" / "au" / "README.md").read_text()
    assert RENDERED in card and "drawn" not in card and "could not be checked: AU2, AU6, AU7, AU15, AU23, AU24." in card
    assert len(alone.sources[0]["withheld"]) == len(AUS) - 6
    assert "against derived labels" in (models.DEFAULT / "heads" / "va" / "README.md").read_text()


def test_an_export_keeps_the_terms(tmp_path):
    """Of the whole bundle, of one head, and of somebody's own head on its encoder."""
    terms, real = "The weights are therefore for research.", "Action units on real faces (benchmarks"
    shipped = json.loads((models.DEFAULT / "bundle.json").read_text())
    names = " + ".join(head["name"] for head in shipped["heads"])
    Export(out=tmp_path / "whole").run()
    assert json.loads((tmp_path / "whole" / "bundle.json").read_text())["data"] == shipped["data"]
    Export(heads=(models.DEFAULT / "heads" / "au",), out=tmp_path / "one").run()
    Export(heads=(tmp_path / "one",), out=tmp_path / "again").run()
    for name, origin in (("whole", 0), ("one", 1), ("again", 1)):
        card = (tmp_path / name / "README.md").read_text()
        assert card.count(terms) == card.count(real) == 1 and "Contempt counts as Other" in card
        assert card.count(f"Of the bundle {names}, from which part of this comes:") == 2 * origin
        for part in (tmp_path / name).glob("*/*/README.md"):
            assert terms in part.read_text()


def test_an_own_head_keeps_the_terms_of_a_bundles_encoder(tmp_path):
    own = make_head(tmp_path / "expr", "expr", [(tmp_path / "made", make_encoder(tmp_path / "made"))])
    write_bundle([own], tmp_path / "first", data=["For research."], scores=["Expressions: 0.9"])
    encoder = tmp_path / "first" / "encoders" / "0"
    Export(heads=(make_head(tmp_path / "va", "va", [(encoder, load_encoder(encoder))]),), out=tmp_path / "second").run()
    card = (tmp_path / "second" / "README.md").read_text()
    assert "- Of the bundle expr, from which part of this comes:\n- For research." in card and "0.9" not in card


def test_another_prior_is_another_prediction(picture):
    prints = {
        Predictor(prior=prior, adapt=adapt).models.fingerprint
        for prior, adapt in (("stated", "none"), ("uniform", "none"), ("stated", "person"), ("stated", "clip"))
    }
    assert len(prints) == 4  # finished clips of other options are not taken for these
    assert answer(picture, adapt="person").sum() == pytest.approx(1, abs=2e-3)
