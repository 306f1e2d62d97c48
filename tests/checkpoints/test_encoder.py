import json

import pytest
import timm
import torch

from checkpoints.artifact import write_sealed
from checkpoints.encoder import load_encoder, save_encoder
from checkpoints.errors import UserError
from checkpoints.network import Encoder, EncoderConfig

TINY = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2, "global_pool": "token"}


def encoder(pooling="mean", **kwargs):
    torch.manual_seed(0)
    return Encoder(EncoderConfig("vit_tiny_patch16_224", 32, TINY | kwargs, pooling=pooling)).eval()


def save(directory, enc, **kwargs):
    save_encoder(directory, enc, made_by="test", recipe={}, parents={}, **kwargs)


@pytest.mark.parametrize(("pooling", "dim"), [("cls", 24), ("mean", 24), ("cls_mean", 48), ("model", 24)])
def test_round_trip(tmp_path, pooling, dim):
    original = encoder(pooling)
    save(tmp_path / "run" / "encoder", original)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    for where in (tmp_path / "run", tmp_path / "run" / "encoder"):
        loaded = load_encoder(where)
        features = loaded(images)
        assert features.shape == (2, dim) and loaded.dim == dim
        assert torch.equal(features, original(images))


@pytest.mark.parametrize("pooling", ["cls", "mean", "model", "grid"])
@pytest.mark.parametrize("channels", [3, 1])
def test_timm_loads_the_directory(tmp_path, pooling, channels):
    ours = encoder(pooling, in_chans=channels)
    save(tmp_path, ours)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert list(theirs.pretrained_cfg["input_size"]) == [channels, 32, 32] and theirs.num_classes == 0
    features, tokens = theirs(ours.normalise(images)), theirs.forward_features(ours.normalise(images))
    torch.testing.assert_close(tokens, ours.backbone.forward_features(ours.normalise(images)))
    if pooling != "grid":
        torch.testing.assert_close(features, ours(images))


def test_timm_loads_a_convolutional_network(tmp_path):
    ours = Encoder(EncoderConfig("resnet10t", 32, {}, pooling="model")).eval()
    save(tmp_path, ours, dtype=torch.float16)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    torch.testing.assert_close(theirs(ours.normalise(images)), load_encoder(tmp_path)(images))


def test_pooling_takes_the_tokens_it_says():
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    tokens = encoder().backbone.forward_features(encoder().normalise(images))
    torch.testing.assert_close(encoder("cls")(images), tokens[:, 0])
    torch.testing.assert_close(encoder("mean")(images), tokens[:, 1:].mean(1))


def test_fingerprint_changes_with_weights_and_pooling(tmp_path):
    save(tmp_path / "a", encoder())
    save(tmp_path / "b", encoder("cls"))
    changed = encoder()
    with torch.no_grad():
        changed.backbone.cls_token += 1
    save(tmp_path / "c", changed)
    assert len({load_encoder(tmp_path / name).fingerprint for name in "abc"}) == 3
    save(tmp_path / "again", encoder())
    assert load_encoder(tmp_path / "again").fingerprint == load_encoder(tmp_path / "a").fingerprint


def test_half_precision_is_stored_and_read_back_in_full(tmp_path):
    save(tmp_path, encoder(), dtype=torch.float16)
    assert next(load_encoder(tmp_path).backbone.parameters()).dtype == torch.float32


def test_misfits_are_named(tmp_path):
    save(tmp_path, encoder())
    header = json.loads((tmp_path / "config.json").read_text())
    header["encoder"]["kwargs"]["depth"] = 2
    write_sealed(tmp_path / "config.json", header)
    with pytest.raises(UserError, match=r"missing blocks\.1"):
        load_encoder(tmp_path)


def test_truncated_weights(tmp_path):
    save(tmp_path, encoder())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read"):
        load_encoder(tmp_path)


def test_folder_of_a_published_timm_model(tmp_path):
    """The hub's form: timm's own config.json beside weights that include a classifier."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=5, **TINY).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    settings = {"input_size": [3, 32, 32], "mean": [0.4, 0.4, 0.4], "std": [0.3, 0.3, 0.3], "classifier": "head"}
    published = {"architecture": "vit_tiny_patch16_224", "model_args": TINY, "pretrained_cfg": settings}
    (tmp_path / "config.json").write_text(json.dumps(published))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    loaded = load_encoder(tmp_path)
    wanted = model.forward_head(model.forward_features((images / 255 - 0.4) / 0.3), pre_logits=True)
    torch.testing.assert_close(loaded(images), wanted)
    assert loaded.config.pooling == "model" and loaded.fingerprint == load_encoder(tmp_path).fingerprint
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        load_encoder(tmp_path)


def test_unknown_timm_model():
    with pytest.raises(UserError, match="timm has no model"):
        load_encoder("timm:vit_gigantic_face")
    with pytest.raises(UserError, match=r"no weights 'vit_base_patch16_224\.nope'; it has .*vit_base_patch16_224\.mae"):
        load_encoder("timm:vit_base_patch16_224.nope")


def test_unbuildable_architecture_is_refused():
    with pytest.raises(UserError, match="timm cannot build"):
        Encoder(EncoderConfig("vit_tiny_patch16_224", 32, {"no_such": 1}))


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "efficientvit_b0", "resnet18"])
def test_any_timm_model_takes_the_size_it_is_given(name):
    encoder = Encoder(EncoderConfig(name, 64, pooling="model")).eval()
    with torch.no_grad():
        assert encoder(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape == (1, encoder.dim)
