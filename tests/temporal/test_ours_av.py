"""Heads that see and hear: trained with sound, scored with and without it."""

from dataclasses import replace

import numpy as np
import pytest

from features.cache import FeatureCache, finish_cache, write_features
from temporal import run
from temporal.caches import open_caches
from temporal.data import build_table
from temporal.heads import load_head
from temporal.labels import read_labels
from temporal.predict import predict_cached, predict_labelled
from temporal.recipes import recipe
from temporal.smoothing import score
from temporal.submission import check_submission, write_submission
from tests.temporal.conftest import TINY
from tests.temporal.corpus import TEST

QUICK = {"tune_on": "hold_out", "batch_size": 16, "lr": 4e-3, "ema": 0.97, "evaluations": 8, "precision": "fp32"}


@pytest.fixture(scope="module")
def caches(corpus, tmp_path_factory):
    """`sound`, which tells something of the labels, the same features `silent` (never valid), and `garbled`."""
    folder, seen = tmp_path_factory.mktemp("sound"), FeatureCache(corpus / "cache")
    mix = np.random.default_rng(1).normal(size=(seen.dim, 5))
    for name in ("sound", "silent", "garbled"):
        rng = np.random.default_rng(2)
        for id in seen.ids:
            face = seen.read(id)
            features = face.features.astype(float) @ mix + rng.normal(0, 0.5, (len(face), 5))
            valid = rng.random(len(face)) > (0.05 if name == "sound" else 2)
            features = features if name == "sound" else features * (name == "garbled") * 100
            facts = {"time_s": face.time_s, "first_frame": face.first_frame}
            write_features(folder / name, id, features=features, valid=valid, **facts)
        made = {"made_by": "test", "config": {"sound": "logmel"}, "parents": {}, "feature_id": "sound", "dim": 5}
        finish_cache(folder / name, **made, encoder="")
    return folder


@pytest.fixture(scope="module")
def settings(corpus, caches, tmp_path_factory):
    options = TINY | QUICK | {"features": (corpus / "cache", caches / "sound"), "fusion_width": 16, "deviation": True}
    return replace(recipe("ours-av", "va"), labels=corpus / "release", out=tmp_path_factory.mktemp("av"), **options)


@pytest.fixture(scope="module")
def both(settings):
    run.main(settings)
    return load_head(settings.out)


def score_of(head, config, paths):
    opened = open_caches(paths)
    tracks, _, validation = read_labels(config, opened)
    table = build_table(opened, {"va": {id: tracks["va"][id] for id in validation}}, head.tasks)
    return score(head.tasks[0], predict_labelled(head, table, table.ids)["va"])["score"]


def test_a_head_names_both_caches_and_how_each_is_made(both):
    face, sound = both.inputs
    assert (face.feature_id, face.sound, face.dim) == ("id of cache", "", 12)
    assert (sound.feature_id, sound.sound, sound.encoder, sound.dim) == ("sound", "logmel", "", 5)
    assert both.recipe == "ours-av" and both.architecture.fusion == "gated" and both.architecture.cache_dropout == 0.3


def test_without_sound_scores_are_near_those_of_vision(both, settings, corpus, caches, tmp_path):
    vision = replace(settings, features=(corpus / "cache",), out=tmp_path / "vision")
    run.main(vision)
    alone = score_of(load_head(vision.out), vision, [corpus / "cache"])
    silent = score_of(both, settings, [corpus / "cache", caches / "silent"])
    heard = score_of(both, settings, [corpus / "cache", caches / "sound"])
    assert alone > 0.5 and heard > 0.5 and silent > alone - 0.12


def test_without_sound_predictions_do_not_depend_on_what_stands_in_its_place(both, corpus, caches):
    values = []
    for name in ("silent", "garbled"):
        opened = open_caches([corpus / "cache", caches / name])
        found, read = predict_cached([both], opened, "test1")
        values.append(found["va"])
        assert np.isfinite(found["va"]).all() and np.array_equal(read.valid, opened[0].read("test1").valid)
    assert np.array_equal(*values)


def test_a_sequence_without_a_face_is_predicted_from_its_sound(both, settings, corpus, caches, tmp_path, capsys):
    example = corpus / "release" / "test_set_examples" / "va.txt"
    unseen = tmp_path / "unseen"
    seen = FeatureCache(corpus / "cache")
    for id in seen.ids:
        face = seen.read(id)
        facts = {"features": face.features, "time_s": face.time_s, "first_frame": face.first_frame}
        write_features(unseen, id, **facts, valid=face.valid & (id != "test2_left"))
    finish_cache(unseen, made_by="t", config={}, parents={}, feature_id=seen.feature_id, dim=12, encoder="../encoder")
    write_submission(tmp_path / "va.txt", [settings.out], [unseen, caches / "sound"], example)
    assert "no face in any frame" not in capsys.readouterr().out
    assert check_submission(tmp_path / "va.txt", example)["frames"] == sum(TEST.values())
