"""Published encoders by short names, with random weights in their shapes but smaller."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

from features.cache import FeatureCache
from features.presets import PRESETS, resolved
from features.run import Extract, main
from temporal import run
from temporal.heads import load_head
from temporal.recipes import recipe
from wildaffect.inference.models import Models, load_models

SMALL = {"depth": 1, "embed_dim": 48, "num_heads": 3}
STATISTICS = {
    "dinov3": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 256),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), 224),
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 224),
    "mae": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224),
}


@pytest.fixture
def random_weights(monkeypatch):
    """Timm builds small networks with random weights, always the same, and downloads nothing."""
    real = timm.create_model

    def create(name, *, pretrained=False, **arguments):
        torch.manual_seed(0)
        return real(name, pretrained=False, **arguments, **SMALL)

    monkeypatch.setattr(timm, "create_model", create)


def extracted(corpus, name, out, **options):
    main(Extract(encoder=name, faces=corpus.faces, out=out, workers=0, precision="fp32", **options))
    return FeatureCache(out)


def pooled(name, backbone, tokens):
    """What the authors take from the tokens."""
    if name == "dinov3":  # a class token, four registers, patches
        return torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], dim=1)
    if name == "siglip":
        return backbone.attn_pool(tokens)
    return tokens[:, 0] if name == "clip" else tokens[:, 1:].mean(1)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_normalises_and_pools_as_its_authors_do(name, random_weights):
    from checkpoints.encoder import load_encoder
    from features.embed import with_pooling

    preset = PRESETS[name]
    encoder = with_pooling(load_encoder(preset.encoder), preset.pooling)
    mean, std, side = STATISTICS[name]
    assert (encoder.config.mean, encoder.config.std, encoder.config.image_size) == (mean, std, side)
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    with torch.inference_mode():
        shown = (images / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        expected = pooled(name, encoder.backbone, encoder.backbone.forward_features(shown))
        torch.testing.assert_close(encoder(images), expected, atol=1e-4, rtol=1e-4)
    assert encoder.dim == expected.shape[1]
    assert ("QuickGELU" in repr(encoder.backbone)) == (name == "clip")


def test_a_folder_of_that_name_and_another_pooling_come_first(tmp_path, monkeypatch):
    config = Extract(encoder="clip", faces=tmp_path, out=tmp_path)
    assert resolved(config).encoder.startswith("timm:") and resolved(config).pooling == "model"
    assert resolved(replace(config, pooling="mean")).pooling == "mean"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip").mkdir()
    assert resolved(config) == config


def test_two_encoders_side_by_side_train_one_head(corpus, tmp_path, random_weights):
    """The documented commands: two caches of the same faces, one head that reads both and finds their encoders."""
    caches = [extracted(corpus, name, tmp_path / name) for name in ("clip", "siglip")]
    options = {"features": (tmp_path / "clip", tmp_path / "siglip"), "labels": corpus.labels, "out": tmp_path / "run"}
    run.main(replace(recipe("framewise", "expr"), **options, epochs=1, evaluations=1, tune_on="hold_out"))
    head = load_head(tmp_path / "run")
    assert [item.encoder for item in head.inputs] == [PRESETS[name].encoder for name in ("clip", "siglip")]
    assert [item.feature_id for item in head.inputs] == [cache.feature_id for cache in caches]
    assert head.network.dims == (48, 48)
    models = load_models([tmp_path / "run"])
    assert isinstance(models, Models) and len(models.embedders) == 2
    read = caches[0].read(caches[0].ids[0])
    assert np.isfinite(read.features).all() and read.valid.any()
