"""The weights that come with the installation, as someone finds them who names no heads."""

import json

import numpy as np
import pytest

from checkpoints.errors import UserError
from tests.drawn_data import face
from wildaffect import Predictor
from wildaffect.inference import models
from wildaffect.inference.clip_facts import describe_kinds
from wildaffect.tasks import EXPRESSIONS

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


def test_another_prior_is_another_prediction(picture):
    prints = {
        Predictor(prior=prior, adapt=adapt).models.fingerprint
        for prior, adapt in (("stated", "none"), ("uniform", "none"), ("stated", "person"), ("stated", "clip"))
    }
    assert len(prints) == 4  # finished clips of other options are not taken for these
    assert answer(picture, adapt="person").sum() == pytest.approx(1, abs=2e-3)
