"""Inference frames faces as they were framed in training, or refuses."""

import numpy as np
import pytest

from checkpoints.errors import UserError
from checkpoints.framing import ARCFACE, OURS, UNKNOWN, Framing
from preprocessing.align import align, encode_jpeg
from preprocessing.video import read_frames
from tests.wildaffect.inference.conftest import make_head
from tests.wildaffect.inference.test_clip import BrightSquare, write_clip
from wildaffect.inference.clip_facts import facts_of, warnings_of
from wildaffect.inference.clips import list_clips
from wildaffect.inference.models import load_models
from wildaffect.inference.predictor import Predictor

MEASURED = Framing("measured", tuple((x, round(y - 0.1, 2)) for x, y in OURS.points))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", list(range(0, 400, 40)))


def predictor_of(path, encoder, framing) -> Predictor:
    predictor = Predictor(make_head(path / f"{framing.name} head", "va", [encoder], framing=framing), device="cpu")
    predictor.detector = BrightSquare()
    return predictor


@pytest.mark.parametrize(
    ("trained", "used"), [(ARCFACE, ARCFACE), (OURS, OURS), (MEASURED, MEASURED), (UNKNOWN, OURS)], ids=lambda f: f.name
)
def test_faces_are_framed_as_in_training(encoder, clip, tmp_path, trained, used):
    predictor = predictor_of(tmp_path, encoder, trained)
    (item,), _ = list_clips([clip])
    store, _ = predictor.find_faces(item, tmp_path / "faces")
    assert store.framing == used
    first = next(read_frames(clip, print)).image
    pictures = {f: encode_jpeg(align(first, store.landmarks(0), 112, f)) for f in (ARCFACE, OURS, MEASURED)}
    assert [f for f, picture in pictures.items() if picture == store.jpeg(0)] == [used]
    centres = store.picture_landmarks(0).mean(0), used.template(112).mean(0)
    assert np.abs(centres[0] - centres[1]).max() < 1
    table = predictor.predict_faces(store, "clip")
    assert table["valence"].null_count == 0
    said = " ".join(warnings_of(predictor.models, facts_of(table), []))
    assert ("not known how the faces were framed" in said) == (trained == UNKNOWN)


def test_faces_of_an_interrupted_run_with_other_heads_are_found_again(encoder, clip, tmp_path):
    (item,), _ = list_clips([clip])
    for framing in (OURS, ARCFACE, OURS):
        predictor = predictor_of(tmp_path, encoder, framing)
        store, _ = predictor.find_faces(item, tmp_path / "faces")
        assert store.framing == framing
        predictor.predict_faces(store, "clip")


def test_a_store_in_another_framing_is_refused(encoder, store, tmp_path):
    assert store.framing == OURS
    with pytest.raises(UserError, match=r"'wildaffect'.*'arcface'.*--framing arcface"):
        predictor_of(tmp_path, encoder, ARCFACE).predict_faces(store, "clip")


def test_heads_of_different_framings_are_refused_together(encoder, tmp_path):
    runs = [
        make_head(tmp_path / f"{framing.name} head", "va", [encoder], framing=framing)
        for framing in (OURS, ARCFACE, UNKNOWN)
    ]
    with pytest.raises(UserError, match=r"wildaffect head \(wildaffect\); arcface head \(arcface\).*one group"):
        load_models(runs)
    some = load_models(runs[1:])
    assert some.framing == ARCFACE and not some.framing_is_known
    assert load_models(runs[:1]).framing_is_known
