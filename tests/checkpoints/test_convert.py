"""Files in the layouts of other programs: converted, refused, and converted back."""

import argparse
import json
import os

import pytest
import timm
import torch
from safetensors.torch import save_file

from checkpoints.convert import Convert, main
from checkpoints.encoder import load_encoder, save_encoder
from checkpoints.errors import UserError
from checkpoints.network import Encoder, EncoderConfig
from checkpoints.tensors import load_tensors
from tests import processes

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = {"patch_size": 8, "embed_dim": 192, "depth": 2, "num_heads": 3}
DECODER_DIM, DECODER_DEPTH = 64, 2


def vit(**kwargs):
    """A timm Vision Transformer of the width of ViT-Ti: timm's names are MAE's."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, **{"num_classes": 0, **SMALL, **kwargs}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


def decoder(dim=DECODER_DIM, depth=DECODER_DEPTH, width=192, patches=16, pixels=192):
    """The decoder's keys as facebookresearch/mae lists them."""
    torch.manual_seed(1)
    shapes = {"mask_token": (1, 1, dim), "decoder_pos_embed": (1, patches + 1, dim)}
    pairs = {"decoder_embed": (dim, width), "decoder_pred": (pixels, dim)}
    norms = ["decoder_norm"]
    for n in range(depth):
        block = f"decoder_blocks.{n}"
        pairs |= {f"{block}.attn.qkv": (3 * dim, dim), f"{block}.attn.proj": (dim, dim)}
        pairs |= {f"{block}.mlp.fc1": (4 * dim, dim), f"{block}.mlp.fc2": (dim, 4 * dim)}
        norms += [f"{block}.norm1", f"{block}.norm2"]
    for name, shape in pairs.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in norms:
        shapes |= {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}
    return {name: torch.randn(shape) * 0.05 for name, shape in shapes.items()}


def images(size=32):
    return torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def normalised(pictures):
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (pictures / 255 - mean) / std


def convert(source, out, **kwargs):
    main(Convert(source=str(source), out=out, **kwargs))


@pytest.fixture
def full(tmp_path):
    """A checkpoint of MAE training: the model with its decoder, and what the script saves with it."""
    arguments = argparse.Namespace(norm_pix_loss=False, mask_ratio=0.6, blr=1.5e-4)
    path = tmp_path / "full.pth"
    content = {"model": vit().state_dict() | decoder(), "optimizer": {"state": {}}, "epoch": 7, "args": arguments}
    torch.save(content, path)
    return path


@pytest.mark.parametrize("wrapped", [lambda s: {"model": s}, lambda s: s, lambda s: {"state_dict": {"model": s}}])
@pytest.mark.parametrize("prefix", ["", "module.", "model.backbone."])
def test_mae_encoder_gives_the_features_of_timms_own_forward(tmp_path, wrapped, prefix):
    model = vit()
    torch.save(wrapped({f"{prefix}{name}": t for name, t in model.state_dict().items()}), tmp_path / "mae.pth")
    convert(tmp_path / "mae.pth", tmp_path / "encoder")
    encoder = load_encoder(tmp_path / "encoder")
    tokens = model.forward_features(normalised(images()))
    torch.testing.assert_close(encoder(images()), tokens[:, 1:].mean(dim=1))
    assert encoder.config.mean == MEAN and encoder.config.std == STD and encoder.config.image_size == 32
    assert not (tmp_path / "encoder" / "decoder.safetensors").exists()


def test_average_before_weights_of_training(tmp_path):
    """If a file holds several state dicts, the model's is used."""
    model = vit()
    average = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    torch.save({"average": average, "model": model.state_dict()}, tmp_path / "mae.pth")
    convert(tmp_path / "mae.pth", tmp_path / "encoder")
    assert torch.equal(load_encoder(tmp_path / "encoder").backbone.cls_token, model.cls_token)


@pytest.mark.parametrize("pooled", ["avg", "token"])
def test_finetuned_classifier_gives_what_its_head_saw(tmp_path, pooled):
    model = vit(num_classes=8, global_pool=pooled)
    assert ("fc_norm.weight" in model.state_dict()) == (pooled == "avg")
    torch.save({"model": model.state_dict()}, tmp_path / "classifier.pth")
    convert(tmp_path / "classifier.pth", tmp_path / "encoder")
    seen = model.forward_head(model.forward_features(normalised(images())), pre_logits=True)
    torch.testing.assert_close(load_encoder(tmp_path / "encoder")(images()), seen)


def test_timm_safetensors_and_pooling(tmp_path):
    model = vit()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    convert(tmp_path / "model.safetensors", tmp_path / "encoder", pooling="cls")
    wanted = model.forward_features(normalised(images()))[:, 0]
    torch.testing.assert_close(load_encoder(tmp_path / "encoder")(images()), wanted)


def test_named_timm_architecture(tmp_path):
    """Weights of a ViT with extras (register token, layer scale) load into the timm model that is named."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit2", num_classes=10).eval()
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"has no cls_token.*--architecture"):
        convert(tmp_path / "model.pth", tmp_path / "no")
    for size in (160, 96):
        model.set_input_size((size, size))
        convert(tmp_path / "model.pth", tmp_path / str(size), architecture="test_vit2", image_size=size)
        encoder = load_encoder(tmp_path / str(size))
        pixels = encoder.normalise(images(size))
        wanted = model.forward_head(model.forward_features(pixels), pre_logits=True)
        torch.testing.assert_close(encoder(images(size)), wanted)
    with pytest.raises(UserError, match=r"no cls_token.*ls1"):
        convert(tmp_path / "160", tmp_path / "back.pth", to="mae")


def test_decoder_is_kept_and_stage_1_continues_from_it(tmp_path, full):
    product = pytest.importorskip("pretrain.build")
    convert(full, tmp_path / "encoder", decoder_heads=4)
    model = product.load_mae(tmp_path / "encoder")
    assert model.mask_ratio == 0.6 and model.norm_pix_loss is False
    wanted = decoder()
    assert model.decoder_state().keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.decoder_state().items())
    assert torch.isfinite(model(images(), torch.rand(3, 16)).loss)
    recipes = pytest.importorskip("pretrain.recipes")
    settings = {**SMALL, "image_size": 32, "decoder_dim": DECODER_DIM, "decoder_depth": DECODER_DEPTH}
    continued = product.build(recipes.Pretrain(**settings, decoder_heads=4, init=tmp_path / "encoder"))
    assert torch.equal(continued.decoder_pred.weight, wanted["decoder_pred.weight"])
    assert torch.equal(continued.encoder.backbone.cls_token, vit().cls_token)
    with pytest.raises(UserError, match="--decoder-heads 4, here it is 2"):
        product.build(recipes.Pretrain(**settings, decoder_heads=2, init=tmp_path / "encoder"))


def test_round_trip_bit_for_bit(tmp_path, full):
    """From MAE's file to a directory and back, twice; the second time needs no further options."""
    convert(full, tmp_path / "a", decoder_heads=4)
    convert(tmp_path / "a", tmp_path / "back.pth", to="mae")
    before = torch.load(full, weights_only=False)["model"]
    after = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    convert(tmp_path / "back.pth", tmp_path / "b")
    for name in ("model", "decoder"):
        assert (tmp_path / "a" / f"{name}.safetensors").read_bytes() == (
            tmp_path / "b" / f"{name}.safetensors"
        ).read_bytes()
    headers = [json.loads((tmp_path / name / "config.json").read_text()) for name in "ab"]
    assert headers[0]["encoder"] == headers[1]["encoder"] and headers[0]["decoder"] == headers[1]["decoder"]


def test_position_embeddings_are_resized(tmp_path, full):
    convert(full, tmp_path / "encoder", decoder_heads=4, image_size=48)
    encoder = load_encoder(tmp_path / "encoder")
    original = vit()
    assert encoder.config.image_size == 48 and encoder.backbone.pos_embed.shape == (1, 37, 192)
    assert load_tensors(tmp_path / "encoder" / "decoder.safetensors")["decoder_pos_embed"].shape == (1, 37, 64)
    assert torch.equal(encoder.backbone.pos_embed[:, 0], original.pos_embed[:, 0])
    original.set_input_size((48, 48))
    torch.testing.assert_close(encoder(images(48)), original.forward_features(normalised(images(48)))[:, 1:].mean(1))
    with pytest.raises(UserError, match="not a multiple of the patch size 8"):
        convert(full, tmp_path / "odd", decoder_heads=4, image_size=50)


def test_our_own_encoder_in_half_precision_is_converted(tmp_path):
    config = EncoderConfig("vit_tiny_patch16_224", 32, {**SMALL, "num_heads": 4, "global_pool": "token"})
    save_encoder(tmp_path / "ours", Encoder(config), made_by="t", recipe={}, parents={}, dtype=torch.float16)
    convert(tmp_path / "ours", tmp_path / "mae.pth", to="mae")
    convert(tmp_path / "mae.pth", tmp_path / "again")
    ours, again = load_encoder(tmp_path / "ours"), load_encoder(tmp_path / "again")
    assert again.config == ours.config  # heads, mean, std and pooling too
    assert torch.equal(again(images()), ours(images()))


def test_malicious_pickle_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"model": vit().state_dict(), "extra": Bomb()}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match=r"it contains code that reading would execute \(posix\.mkdir\)\. Download"):
        convert(tmp_path / "bad.pth", tmp_path / "encoder")
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "encoder").exists()


class Blocked:
    def __reduce__(self):
        return os.system, ("true",)


class Unfit:
    def __reduce__(self):
        return torch.nn.Parameter, ("no tensor",)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["blocked", "unfit", "script", "text"])
def test_how_to_read_a_file_all_the_same_is_not_told(tmp_path, kind):
    """Torch's message suggests `weights_only=False`, which would execute code from the file."""
    path = tmp_path / "bad.pth"
    if kind == "script":
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)
    elif kind == "text":
        path.write_text("not found")
    else:
        torch.save({"extra": Blocked() if kind == "blocked" else Unfit()}, path)
    with pytest.raises(UserError) as error:
        convert(path, tmp_path / "encoder")
    text = str(error.value)
    assert text.endswith("Download it again, or ask its author for a .safetensors file or a plain state dict")
    assert "Re-running" not in text and "False" not in text and "\n" not in text
    assert ("system)" in text) == (kind == "blocked")


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_damaged_and_missing_files(tmp_path, ending):
    path = tmp_path / f"broken.{ending}"
    with pytest.raises(UserError, match="does not exist"):
        convert(path, tmp_path / "encoder")
    torch.save({"model": vit().state_dict()}, path)
    for kept in (1000, 0):
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(UserError, match="broken"):
            convert(path, tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()


def test_a_file_whose_content_is_not_what_its_checksum_says_is_refused(tmp_path):
    path = tmp_path / "flipped.pth"
    torch.save({"model": vit().state_dict()}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"flipped\.pth is damaged: .* is not what its checksum says"):
        convert(path, tmp_path / "encoder")


@pytest.mark.parametrize("key", ["blocks.a.norm1.weight", "blocks.99999999.norm1.weight", 5])
def test_names_that_no_layer_has_are_refused(tmp_path, key):
    torch.save({"model": vit().state_dict() | {key: torch.zeros(1)}}, tmp_path / "bad.pth")
    if key == 5:
        convert(tmp_path / "bad.pth", tmp_path / "encoder")
    else:
        with pytest.raises(UserError, match="unknown blocks"):
            convert(tmp_path / "bad.pth", tmp_path / "encoder")


def test_misfits_are_listed(tmp_path):
    state = vit().state_dict()
    del state["blocks.1.norm2.bias"]
    state |= {"blocks.0.attn.q_bias": torch.zeros(192), "norm.weight": torch.zeros(100)}
    torch.save({"model": state}, tmp_path / "bad.pth")
    with pytest.raises(UserError) as error:
        convert(tmp_path / "bad.pth", tmp_path / "encoder")
    for part in (
        "missing blocks.1.norm2.bias",
        "unknown blocks.0.attn.q_bias",
        r"norm.weight is [100], expected [192]",
    ):
        assert part in str(error.value)
    torch.save({"model": vit().state_dict() | decoder() | {"decoder_extra": torch.zeros(1)}}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="unknown decoder_extra"):
        convert(tmp_path / "bad.pth", tmp_path / "encoder", decoder_heads=4)
    convert(tmp_path / "bad.pth", tmp_path / "encoder", decoder_heads=4, drop=("decoder_extra",))
    with pytest.raises(UserError, match="already holds an encoder"):
        convert(tmp_path / "bad.pth", tmp_path / "encoder", decoder_heads=4, drop=("decoder_extra",))


def test_all_misfits_are_listed_of_encoder_and_decoder(tmp_path):
    """So that the user sees everything that needs to be dropped at once."""
    parts = decoder()
    del parts["mask_token"]
    parts |= {f"decoder_extra{n}": torch.zeros(1) for n in range(9)} | {"decoder_norm.bias": torch.zeros(3)}
    torch.save(vit().state_dict() | parts | {f"extra{n}": torch.zeros(1) for n in range(9)}, tmp_path / "bad.pth")
    with pytest.raises(UserError) as error:
        convert(tmp_path / "bad.pth", tmp_path / "encoder", decoder_heads=4)
    wanted = ["missing mask_token", "decoder_norm.bias is [3], expected [64]"]
    wanted += [f"unknown {part}{n}" for part in ("extra", "decoder_extra") for n in range(9)]
    assert sorted(str(error.value).split(" do not fit: ")[1].split("; ")) == sorted(wanted)


def test_decoder_beside_a_named_architecture(tmp_path):
    parts = decoder(width=192, patches=196, pixels=768)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    torch.save(model.state_dict() | parts, tmp_path / "model.pth")
    convert(tmp_path / "model.pth", tmp_path / "encoder", architecture="vit_tiny_patch16_224", decoder_heads=4)
    assert load_tensors(tmp_path / "encoder" / "decoder.safetensors").keys() == parts.keys()


@pytest.mark.parametrize("source", ["directory", "timm:vit_tiny_patch16_224"])
def test_options_of_files_are_refused_elsewhere(tmp_path, source):
    (tmp_path / "directory").mkdir()
    source = source if source.startswith("timm:") else tmp_path / source
    options = {"heads": 3, "decoder_heads": 4, "drop": ("head",), "architecture": "vit_tiny_patch16_224"}
    for name, value in options.items():
        with pytest.raises(UserError, match=rf"--{name.replace('_', '-')}: only for \.pth and \.safetensors files"):
            convert(source, tmp_path / "out", **{name: value})
    with pytest.raises(UserError, match=r"--heads, --drop: only for"):
        convert(source, tmp_path / "out", heads=3, drop=("head",))


def test_what_stands_at_out_is_left_alone(tmp_path, full):
    convert(full, tmp_path / "a", decoder_heads=4)
    (tmp_path / "mae.pth").write_text("mine")
    with pytest.raises(UserError, match=r"mae\.pth already exists: choose another --out"):
        convert(tmp_path / "a", tmp_path / "mae.pth", to="mae")
    assert (tmp_path / "mae.pth").read_text() == "mine"
    before = (tmp_path / "a" / "decoder.safetensors").read_bytes()
    with pytest.raises(UserError, match="already holds an encoder: choose another --out"):
        convert(tmp_path / "a", tmp_path / "a", half=True)
    assert (tmp_path / "a" / "decoder.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("mean", "std", "noted"), [(MEAN, STD, False), (MEAN, (0.5, 0.5, 0.5), True), ((0.5, 0.5, 0.5), STD, True)]
)
def test_another_mean_or_std_than_maes_is_noted(tmp_path, capsys, mean, std, noted):
    settings = {**SMALL, "global_pool": "token"}
    encoder = Encoder(EncoderConfig("vit_tiny_patch16_224", 32, settings, mean=mean, std=std))
    save_encoder(tmp_path / "ours", encoder, made_by="test", recipe={}, parents={})
    convert(tmp_path / "ours", tmp_path / "mae.pth", to="mae")
    assert ("normalise with another mean" in capsys.readouterr().out) == noted


def test_what_a_file_does_not_say_is_asked_for(tmp_path, full):
    with pytest.raises(UserError, match=r"no published model is 64 wide.*--decoder-heads"):
        convert(full, tmp_path / "encoder")
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=r"no key ends in patch_embed\.proj\.weight \(it holds conv1\.weight\)"):
        convert(tmp_path / "resnet.pth", tmp_path / "encoder")
    save_file(vit().state_dict(), tmp_path / "ours.safetensors")
    with pytest.raises(UserError, match=r"reads \.pth files"):
        convert(tmp_path / "ours.safetensors", tmp_path / "mae.bin", to="mae")


def test_command_line_ends_without_a_traceback(tmp_path):
    ended = processes.run("checkpoints/convert.py", tmp_path / "no.pth", "--out", "x")
    assert ended.returncode == 2 and "no.pth does not exist" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("value", [None, "x", -1, [1], {}, float("nan"), (1, 2, 3, 4)])
def test_arguments_of_another_trainer_may_be_anything(tmp_path, value):
    names = ("heads", "decoder_heads", "mean", "std", "mask_ratio", "norm_pix_loss")
    named = argparse.Namespace(**dict.fromkeys(names, value))
    torch.save({"model": vit().state_dict(), "args": vars(named)}, tmp_path / "model.pth")
    convert(tmp_path / "model.pth", tmp_path / "out")
    assert load_encoder(tmp_path / "out").config.mean == MEAN


def test_weights_of_a_pooling_have_no_place_in_maes_layout(tmp_path):
    settings = {**SMALL, "global_pool": "token"}
    encoder = Encoder(EncoderConfig("vit_tiny_patch16_224", 32, settings, pooling="grid"))
    save_encoder(tmp_path / "grid", encoder, made_by="test", recipe={}, parents={})
    with pytest.raises(UserError, match=r"squeeze\.weight, which is not in MAE's layout"):
        convert(tmp_path / "grid", tmp_path / "back.pth", to="mae")


def test_a_stage_1_encoder_in_half_precision_keeps_what_its_directory_says(tmp_path):
    """`--half` is how the shipped encoders are made: the same header, decoder and card, half the bytes."""
    product = pytest.importorskip("pretrain.build")
    recipes = pytest.importorskip("pretrain.recipes")
    settings = {**SMALL, "image_size": 32, "decoder_dim": DECODER_DIM, "decoder_depth": DECODER_DEPTH}
    model = product.build(recipes.Pretrain(**settings, decoder_heads=4, mask_ratio=0.6))
    model.encoder.provenance = {"stage": "pretrain", "synthetic": True, "unlabelled_videos": ["v"], "pictures_seen": 7}
    told = {"dim": DECODER_DIM, "depth": DECODER_DEPTH, "num_heads": 4, "mask_ratio": 0.6, "norm_pix_loss": True}
    ours, half = tmp_path / "run" / "encoder", tmp_path / "half"
    product.write_encoder(ours, model, decoder=told, recipe={"epochs": 3}, parents={"faces_0": "f"})
    convert(tmp_path / "run", half, half=True)
    headers = [json.loads((directory / "config.json").read_text()) for directory in (ours, half)]
    assert headers[0].pop("seal") != headers[1].pop("seal")
    for parts in (headers, [header["decoder"] for header in headers]):
        assert parts[0].pop("weights") != parts[1].pop("weights")
    assert headers[0] == headers[1] and headers[1]["made_by"].endswith(" pretrain/run.py")
    assert (half / "README.md").read_bytes() == (ours / "README.md").read_bytes()
    for name in ("model", "decoder"):
        stored, original = (load_tensors(directory / f"{name}.safetensors") for directory in (half, ours))
        assert all(torch.equal(tensor, original[key].half()) for key, tensor in stored.items())
    loaded = product.load_mae(half)
    assert loaded.mask_ratio == 0.6 and torch.equal(loaded.mask_token, model.mask_token.half().float())
    assert loaded.encoder.provenance == model.encoder.provenance
    convert(tmp_path / "run", tmp_path / "resized", half=True, image_size=48)  # no longer what the recipe made
    header = json.loads((tmp_path / "resized" / "config.json").read_text())
    assert header["config"]["image_size"] == 48 and not (tmp_path / "resized" / "README.md").exists()
