"""The masked autoencoder against transformers' independent implementation, and against its own definition."""

import pytest
import torch

from checkpoints.errors import UserError
from checkpoints.network import Encoder, EncoderConfig
from pretrain.mae import DecoderConfig, MaskedAutoencoder

SIZES = [
    {"image_size": 32, "patch_size": 8, "dim": 48, "depth": 2, "heads": 3, "decoder": (32, 2, 4)},
    {"image_size": 64, "patch_size": 16, "dim": 96, "depth": 3, "heads": 4, "decoder": (48, 1, 3)},
]


def make(size, *, mask_ratio=0.75, norm_pix_loss=False):
    encoder = Encoder(
        EncoderConfig(
            "vit_tiny_patch16_224",
            size["image_size"],
            {
                "patch_size": size["patch_size"],
                "embed_dim": size["dim"],
                "depth": size["depth"],
                "num_heads": size["heads"],
                "global_pool": "token",
            },
        )
    )
    model = MaskedAutoencoder(
        encoder, DecoderConfig(*size["decoder"]), mask_ratio=mask_ratio, norm_pix_loss=norm_pix_loss
    )
    torch.manual_seed(0)
    model.initialise()
    for parameter in model.parameters():  # biases and norms away from their starting values, so that they count
        if parameter.requires_grad and parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.2)
    return model


NAMES = {
    "encoder.backbone.cls_token": "vit.embeddings.cls_token",
    "encoder.backbone.pos_embed": "vit.embeddings.position_embeddings",
    "encoder.backbone.patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
    "encoder.backbone.blocks": "vit.layers",
    "encoder.backbone.norm": "vit.layernorm",
    "decoder_pos_embed": "decoder.decoder_pos_embed",
    "decoder_embed": "decoder.decoder_embed",
    "decoder_blocks": "decoder.decoder_layers",
    "decoder_norm": "decoder.decoder_norm",
    "decoder_pred": "decoder.decoder_pred",
    "mask_token": "decoder.mask_token",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
}


def in_transformers(tensors):
    """Our tensors under transformers' names; the joint qkv is three there."""
    renamed = {}
    for ours_name, tensor in tensors.items():
        name = ours_name
        for ours, theirs in NAMES.items():
            if name.startswith(ours) or f".{ours}." in name:
                name = name.replace(ours, theirs, 1)
        if ".attn.qkv." in name:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                renamed[name.replace("attn.qkv", f"attention.{part}_proj")] = piece
        else:
            renamed[name] = tensor
    return renamed


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_parity_with_transformers(size, norm_pix_loss):
    transformers = pytest.importorskip("transformers")
    model = make(size, norm_pix_loss=norm_pix_loss)
    reference = transformers.ViTMAEForPreTraining(
        transformers.ViTMAEConfig(
            hidden_size=size["dim"],
            num_hidden_layers=size["depth"],
            num_attention_heads=size["heads"],
            intermediate_size=4 * size["dim"],
            image_size=size["image_size"],
            patch_size=size["patch_size"],
            decoder_hidden_size=size["decoder"][0],
            decoder_num_hidden_layers=size["decoder"][1],
            decoder_num_attention_heads=size["decoder"][2],
            decoder_intermediate_size=4 * size["decoder"][0],
            mask_ratio=0.75,
            norm_pix_loss=norm_pix_loss,
            layer_norm_eps=1e-6,
        )
    )
    reference.load_state_dict(in_transformers(model.state_dict()))
    images = torch.randint(0, 256, (5, 3, size["image_size"], size["image_size"]), dtype=torch.uint8)
    noise = torch.rand(5, model.num_patches)
    ours = model(images, noise)
    theirs = reference(model.encoder.normalise(images), noise=noise)
    ours.loss.backward()
    theirs.loss.backward()

    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-5, atol=0)
    place = ours.masked.unsqueeze(-1).expand_as(ours.predicted)
    torch.testing.assert_close(ours.predicted, theirs.logits.gather(1, place), rtol=1e-5, atol=1e-5)
    assert theirs.mask.gather(1, ours.masked).min() == 1  # the same patches are hidden
    gradients = in_transformers({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    expected = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        scale = expected[name].abs().max()
        assert (gradient - expected[name]).abs().max() <= 1e-5 * scale + 1e-8, name


def test_bf16_on_a_cpu_stays_close_to_float32():
    model = make(SIZES[1])
    images = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8)
    noise = torch.rand(5, model.num_patches)
    expected = model(images, noise)
    expected.loss.backward()
    gradient = model.encoder.backbone.blocks[0].attn.qkv.weight.grad.clone()
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        result = model(images, noise)
    result.loss.backward()
    assert result.predicted.dtype == torch.bfloat16 and result.loss.dtype == torch.float32
    torch.testing.assert_close(result.loss, expected.loss, rtol=1e-2, atol=0)
    found = model.encoder.backbone.blocks[0].attn.qkv.weight.grad
    assert torch.nn.functional.cosine_similarity(found.flatten(), gradient.flatten(), dim=0) > 0.99


def test_patchify_and_back():
    model = make(SIZES[0])
    images = torch.rand(2, 3, 32, 32)
    patches = model.patchify(images)
    assert patches.shape == (2, 16, 8 * 8 * 3)
    torch.testing.assert_close(model.unpatchify(patches), images)
    torch.testing.assert_close(patches[0, 1], images[0, :, :8, 8:16].permute(1, 2, 0).flatten())


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_reconstruct_keeps_visible_patches_and_unnormalises(norm_pix_loss):
    model = make(SIZES[0], norm_pix_loss=norm_pix_loss).eval()
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    noise = torch.rand(3, 16)
    masked, predicted = model.reconstruct(images, noise)
    visible = noise.argsort(dim=1)[:, :4]
    originals = model.patchify(images.float())
    for part in (masked, predicted):
        patches = model.patchify(part.float())
        for row, kept in enumerate(visible):
            assert (patches[row, kept] - originals[row, kept]).abs().max() <= 1
    assert (model.patchify(masked.float())[0, noise[0].argsort()[-1]] - 127.5).abs().max() <= 1
    if norm_pix_loss:  # a flat patch stays flat, whatever is predicted for it
        flat = torch.full((1, 3, 32, 32), 200, dtype=torch.uint8)
        _, predicted = model.reconstruct(flat, noise[:1])
        assert (predicted.float() - 200).abs().max() <= 1


def test_encoder_without_class_token_is_refused():
    encoder = Encoder(EncoderConfig("vit_tiny_patch16_224", 32, {"class_token": False, "global_pool": "avg"}))
    with pytest.raises(UserError, match="class token"):
        MaskedAutoencoder(encoder, DecoderConfig(32, 1, 4), mask_ratio=0.75, norm_pix_loss=False)


def test_positions_are_fixed_and_distinct():
    model = make(SIZES[0])
    positions = model.encoder.backbone.pos_embed
    assert not positions.requires_grad
    assert positions[0, 0].abs().max() == 0
    assert torch.cdist(positions[0], positions[0]).fill_diagonal_(1).min() > 1e-3


@pytest.mark.parametrize("kwargs", [{"pre_norm": True}, {"reg_tokens": 3}, {"reg_tokens": 2, "no_embed_class": True}])
def test_every_part_of_an_architecture_takes_part(kwargs):
    """With all patches visible, the encoder of stage 1 computes what timm's own forward pass does."""
    small = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "global_pool": "token"}
    encoder = Encoder(EncoderConfig("vit_tiny_patch16_224", 32, small | kwargs))
    model = MaskedAutoencoder(encoder, DecoderConfig(32, 1, 4), mask_ratio=0.0, norm_pix_loss=False).eval()
    model.initialise()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.2)
    images = encoder.normalise(torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8))
    backbone = encoder.backbone
    with torch.no_grad():
        expected = backbone.forward_features(images)
        found = model.encode(model.patchify(images), torch.arange(16).expand(2, -1))
        torch.testing.assert_close(found[:, 0], expected[:, 0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found[:, 1:], expected[:, backbone.num_prefix_tokens :], atol=1e-5, rtol=1e-4)


def test_other_embeddings_are_refused():
    small = {"patch_size": 8, "embed_dim": 48, "depth": 1, "num_heads": 3, "global_pool": "token", "pos_embed": "none"}
    encoder = Encoder(EncoderConfig("vit_tiny_patch16_224", 32, small))
    with pytest.raises(UserError, match="positions added"):
        MaskedAutoencoder(encoder, DecoderConfig(32, 1, 4), mask_ratio=0.5, norm_pix_loss=False)
