"""Heads that see and hear: trained with sound, scored with and without it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from features.cache import FeatureCache, finish_cache, write_features
from temporal import run
from temporal.caches import open_caches
from temporal.heads import load_head
from temporal.predict import predict_cached
from temporal.recipes import recipe
from temporal.submission import check_submission, write_submission
from tests.temporal.conftest import TINY
from tests.temporal.corpus import TEST
from tests.temporal.test_network import build

QUICK = {"layers": 1, "epochs": 3, "evaluations": 1, "precision": "fp32"}


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


def test_a_head_names_both_caches_and_how_each_is_made(both):
    face, sound = both.inputs
    assert (face.feature_id, face.sound, face.dim) == ("id of cache", "", 12)
    assert (sound.feature_id, sound.sound, sound.encoder, sound.dim) == ("sound", "logmel", "", 5)
    assert both.recipe == "ours-av" and both.architecture.fusion == "gated" and both.architecture.cache_dropout == 0.3


def train(network, dims):
    """Teach a network a number that faces (6 features) and sound (5) show through noise; `dims`: what it gets."""
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(network.train().parameters(), lr=1e-2)
    for _ in range(60):
        features, target = examples(16, dims)
        valid, inside = torch.ones(16, 24, len(dims), dtype=torch.bool), torch.ones(16, 24, dtype=torch.bool)
        loss = (network(features, valid, inside) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def examples(count, dims):
    target = torch.randn(count, 24, 1).cumsum(dim=1) / 5 + torch.randn(count, 1, 1)
    signs = torch.tensor([1.0, -1.0] * 6)[: sum(dims)]
    return target * signs + torch.randn(count, 24, sum(dims)) * 2, target


def test_without_sound_a_head_is_nearly_as_good_as_one_that_only_sees():
    """And better with it, because whole caches were hidden in training."""
    seeing, both = train(build("ours-av", (6,), out=1), (6,)), train(build("ours-av", (6, 5), out=1), (6, 5))
    torch.manual_seed(2)
    features, target = examples(200, (6, 5))
    inside, errors = torch.ones(200, 24, dtype=torch.bool), {}
    for name, network, flags in (
        ("vision", seeing, [True]),
        ("silent", both, [True, False]),
        ("heard", both, [True] * 2),
    ):
        given = features[..., :6] if name == "vision" else features
        with torch.inference_mode():
            found = network(given, torch.tensor(flags).expand(200, 24, -1), inside)
        errors[name] = float((found - target).square().mean())
    assert errors["heard"] < errors["vision"] < 0.5 * float(target.var())
    assert errors["silent"] < 1.3 * errors["vision"]


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
