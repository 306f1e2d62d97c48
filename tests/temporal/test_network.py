import numpy as np
import pytest
import torch
from torch import nn

from checkpoints.errors import UserError
from features.cache import fill_nearest
from temporal.fusion import AttentionFusion, GatedFusion, Mean
from temporal.layers import TCN, FrameBatchNorm, Transformer, sinusoids
from temporal.network import HeadNetwork
from temporal.recipes import Architecture, architecture_of, recipes

SMALL = {"window": 20, "stride": 10, "width": 16, "feedforward": 16, "attention_heads": 2, "fusion_width": 32}


def inside_of(lengths, time):
    return torch.arange(time)[None] < torch.tensor(lengths)[:, None]


def build(name, dims=(6, 5), out=3, task="va", **changes):
    options = vars(architecture_of(recipes(task)[name][1])) | SMALL
    options["layers"] = min(options["layers"], 2)
    options["hidden"] = min(options["hidden"], 8)
    options["tcn_channels"] = tuple(8 for _ in options["tcn_channels"])
    torch.manual_seed(0)
    return HeadNetwork(Architecture(**{**options, **changes}), dims, out)


@pytest.mark.parametrize("name", recipes("va"))
def test_padding_changes_nothing_for_real_frames(name):
    dims = (6, 6) if name == "nguyen2024-mean" else (6, 5)
    network = build(name, dims, normalise=True).eval()
    if network.architecture.readout == "last":
        pytest.skip("windows that end at a frame are padded by repeating the first frame, on purpose")
    features = torch.randn(3, 20, sum(dims))
    valid = torch.rand(3, 20, 2) < 0.8
    inside = inside_of([20, 13, 1], 20)
    whole = network(features, valid, inside)
    changed = torch.where(inside[..., None], features, torch.tensor(77.0))
    torch.testing.assert_close(network(changed, valid | ~inside[..., None], inside)[inside], whole[inside])
    for row, length in enumerate((20, 13, 1)):
        alone = network(features[row : row + 1, :length], valid[row : row + 1, :length], inside[row : row + 1, :length])
        torch.testing.assert_close(alone[0], whole[row, :length], atol=1e-5, rtol=1e-4)


def test_training_statistics_leave_padding_out():
    norm = FrameBatchNorm(4)
    x = torch.randn(2, 10, 4)
    inside = inside_of([10, 3], 10)
    x[~inside] = 1000
    out = norm(x, inside)
    reference = nn.BatchNorm1d(4)
    torch.testing.assert_close(out[inside], reference(x[inside]))
    torch.testing.assert_close(norm.running_mean, reference.running_mean)
    assert out[~inside].eq(0).all()


@pytest.mark.parametrize("name", ["ling2024", "ours-causal"])
def test_causal_parts_do_not_look_ahead(name):
    network = build(name, (6,), layers=0 if name == "ling2024" else 2).eval()  # ling2024's Transformer sees its window
    features, valid, inside = torch.randn(1, 20, 6), torch.ones(1, 20, 1, dtype=torch.bool), inside_of([20], 20)
    before = network(features, valid, inside)
    features[:, 12:] += 5
    after = network(features, valid, inside)
    torch.testing.assert_close(after[:, :12], before[:, :12])
    assert not torch.allclose(after[:, 12:], before[:, 12:])


def test_tcn_equals_its_definition():
    """Two dilated causal convolutions with PReLU, a residual, and weight normalisation, written out."""
    torch.manual_seed(0)
    tcn = TCN(3, (4, 4), kernel=3, causal=True, dropout=0.0).eval()
    x = torch.randn(1, 12, 3)
    y = x[0].T.detach().numpy().astype(np.float64)
    for level, block in enumerate(tcn.blocks):
        dilation, inner = 2**level, y
        for conv, act in zip(block.convs, block.activations, strict=False):
            g, v = (
                p.detach().numpy().astype(np.float64)
                for p in (conv.parametrizations.weight.original0, conv.parametrizations.weight.original1)
            )
            weight = g * v / np.sqrt((v**2).sum(axis=(1, 2), keepdims=True))
            out = np.zeros((4, 12)) + conv.bias.detach().numpy()[:, None]
            for t in range(12):
                for tap in range(3):
                    source = t - (2 - tap) * dilation
                    if source >= 0:
                        out[:, t] += weight[:, :, tap] @ inner[:, source]
            slope = act.weight.item()
            inner = np.where(out > 0, out, slope * out)
        skip = y
        if block.residual is not None:
            skip = block.residual.weight[..., 0].detach().numpy() @ y + block.residual.bias.detach().numpy()[:, None]
        y = skip + inner
        y = np.where(y > 0, y, block.activations[2].weight.item() * y)
    result = tcn(x, torch.ones(1, 12, dtype=torch.bool))[0].T.detach().numpy()
    np.testing.assert_allclose(result, y, atol=1e-5)


def test_non_causal_tcn_is_centred():
    torch.manual_seed(0)
    tcn = TCN(1, (2,), kernel=5, causal=False, dropout=0.0).eval()
    x = torch.zeros(1, 31, 1, requires_grad=True)
    tcn(x, torch.ones(1, 31, dtype=torch.bool))[0, 15].sum().backward()
    reached = x.grad[0, :, 0].nonzero()[:, 0]
    assert reached.min() == 15 - 4 and reached.max() == 15 + 4


def test_transformer_equals_torch_on_unpadded_input():
    torch.manual_seed(0)
    ours = Transformer(8, 8, 2, 2, 16, positions=True, norm_first=False, causal=False, dropout=0.0).eval()
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
    reference = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    reference.load_state_dict(ours.encoder.state_dict())
    x = torch.randn(2, 9, 8)
    expected = reference(x + sinusoids(9, 8))
    torch.testing.assert_close(ours(x, torch.ones(2, 9, dtype=torch.bool)), expected)


def test_sinusoids_are_vaswanis():
    table = sinusoids(50, 6).numpy()
    for position in (0, 1, 49):
        for column in range(6):
            angle = position / 10_000 ** (2 * (column // 2) / 6)
            assert table[position, column] == pytest.approx(
                np.sin(angle) if column % 2 == 0 else np.cos(angle), abs=1e-5
            )


def test_attention_fusion_equals_its_definition():
    """nguyen2024: x1 + softmax(q k^T) v over the scalars of a frame, each a token of one dimension."""
    torch.manual_seed(0)
    fusion = AttentionFusion((5, 4), 16)
    f1, f2 = torch.randn(2, 3, 5), torch.randn(2, 3, 4)
    x1, x2 = fusion.main(f1), fusion.auxiliary(f2)
    key = fusion.key(torch.cat([x1, x2], -1))
    a = fusion.attention
    (wq, wk, wv), (bq, bk, bv) = a.in_proj_weight[:, 0], a.in_proj_bias
    q, k, v = wq * x2 + bq, wk * key + bk, wv * x1 + bv
    scores = (q[..., :, None] * k[..., None, :]).softmax(-1)
    attended = (scores @ v[..., None])[..., 0] * a.out_proj.weight[0, 0] + a.out_proj.bias
    torch.testing.assert_close(fusion(torch.cat([f1, f2], -1)), attended + x1)


def test_mean_fusion_averages_caches_of_one_width():
    x = torch.arange(12.0).view(1, 2, 6)
    torch.testing.assert_close(Mean((3, 3))(x), (x[..., :3] + x[..., 3:]) / 2)
    with pytest.raises(UserError, match="needs caches of equal width"):
        build("nguyen2024-mean", (3, 2))


def test_attention_fusion_needs_two_caches():
    with pytest.raises(UserError, match="joins two feature caches, but got 1"):
        build("nguyen2024", (6,))


def test_whole_caches_are_dropped_never_all_of_them():
    torch.manual_seed(0)
    network = build("framewise", (1, 1), cache_dropout=0.9, normalise=False).train()
    x, flags = network._drop_caches(torch.ones(500, 3, 2), torch.ones(500, 3, 2, dtype=torch.bool))
    kept = flags[:, 0]
    assert kept.any(dim=1).all() and kept.float().mean() < 0.65
    assert x.eq(flags.float()).all() and (flags == flags[:, :1]).all()


def test_last_readout_predicts_the_last_frame_only():
    network = build("min2024", (6,)).eval()
    out = network(torch.randn(2, 20, 6), torch.ones(2, 20, 1, dtype=torch.bool), inside_of([20, 20], 20))
    assert out.shape == (2, 20, 3) and out[:, :-1].eq(0).all() and out[:, -1].ne(0).all()


def test_ling2024_is_the_papers_network():
    network = HeadNetwork(architecture_of(recipes("expr")["ling2024"][1]), (768,), 8)
    assert [block.convs[0].weight.shape for block in network.tcn.blocks] == [
        (768, 768, 5),
        (256, 768, 5),
        (128, 256, 5),
    ]
    assert [block.convs[0].dilation for block in network.tcn.blocks] == [(1,), (2,), (4,)]
    layers = network.transformer.encoder.layers
    assert len(layers) == 8 and layers[0].self_attn.num_heads == 4 and layers[0].linear1.weight.shape == (512, 512)
    assert network.transformer.project.weight.shape == (512, 128)
    assert network.hidden.weight.shape == (256, 512) and network.readout.weight.shape == (8, 256)


def test_ours_causal_fills_gaps_from_the_past_only():
    """A cache fills a gap with the nearest frame, often a later one; a causal head must not see it."""
    network = build("ours-causal", (4, 2), layers=2).eval()
    rng = np.random.default_rng(0)
    valid = torch.tensor([[True] * 5 + [False] * 8 + [True] * 7, [False] * 10 + [True] * 10]).T[None]
    raw, outputs = rng.normal(size=(20, 6)), []
    for later in (0.0, 5.0):
        changed = raw + later * (np.arange(20) >= 13)[:, None]
        filled = [
            fill_nearest(changed[:, part], flags, np.arange(20))
            for part, flags in zip((slice(0, 4), slice(4, 6)), valid[0].T.numpy(), strict=True)
        ]
        x = torch.tensor(np.concatenate(filled, axis=1)[None], dtype=torch.float32)
        outputs.append(network(x, valid, inside_of([20], 20)))
    torch.testing.assert_close(outputs[0][:, :13], outputs[1][:, :13])
    assert not torch.allclose(outputs[0][:, 13:], outputs[1][:, 13:])


def test_gated_fusion_equals_its_definition():
    torch.manual_seed(0)
    fusion = GatedFusion((3, 2), 4)
    parts, known = [torch.randn(1, 5, 3), torch.randn(1, 5, 2)], torch.ones(1, 5, 2, dtype=torch.bool)
    shown = [torch.tanh(project(part)) for project, part in zip(fusion.project, parts, strict=True)]
    first, second = (gate(part).exp() for gate, part in zip(fusion.gate, shown, strict=True))
    expected = (first * shown[0] + second * shown[1]) / (first + second)
    torch.testing.assert_close(fusion(parts, known), expected)
    known[0, 2:, 1] = False  # a cache that is missing counts nothing
    known[0, 4, 0] = False  # where both are, those count that are not missing everywhere
    expected[:, 2:4] = shown[0][:, 2:4]
    torch.testing.assert_close(fusion(parts, known)[:, :4], expected[:, :4])
    torch.testing.assert_close(fusion(parts, known)[:, 4:], expected[:, 4:])
    assert fusion(parts, torch.zeros_like(known)).eq(0).all()


@pytest.mark.parametrize("causal", [False, True])
def test_without_sound_ours_av_is_its_vision_path(causal):
    """Sound that is flagged as missing changes nothing, whatever stands in its place, even where no face is."""
    network = build("ours-av", (6, 5), tcn_causal=causal, attention_causal=causal).eval()
    features, inside = torch.randn(2, 20, 11), inside_of([20, 16], 20)
    valid = torch.stack([torch.rand(2, 20) < 0.7, torch.zeros(2, 20, dtype=torch.bool)], dim=-1)
    silent = network(features, valid, inside)
    for noise in (0.0, 1e4):
        features[..., 6:] = noise * torch.randn(2, 20, 5)
        torch.testing.assert_close(network(features, valid, inside), silent)
    # The same weights in a network that has no ears: the flag of the sound is 0, so its column does not count.
    vision = build("ours-av", (6,), tcn_causal=causal, attention_causal=causal).eval()
    own = vision.state_dict()
    cut = {name: item[tuple(map(slice, own[name].shape))] for name, item in network.state_dict().items() if name in own}
    vision.load_state_dict(cut)
    torch.testing.assert_close(
        _fused(vision, features[..., :6], valid[..., :1], inside), _fused(network, features, valid, inside)
    )
    assert silent.isfinite().all()
    heard = valid | torch.tensor([False, True])
    assert not torch.allclose(network(features.clamp(-3, 3), heard, inside), silent)


def _fused(network, features, valid, inside):
    known = valid & inside[..., None]
    parts = [network._with_deviation(part, flags) for part, flags in network._by_cache(features, known)]
    return network.fuse(parts, known)


def test_ours_av_masks_each_cache_on_its_own():
    network = build("ours-av", (6, 5), cache_dropout=0.0).train()
    torch.manual_seed(1)
    valid, inside = torch.ones(64, 20, 2, dtype=torch.bool), inside_of([20] * 64, 20)
    _, flags = network._mask(torch.randn(64, 20, 11), valid, inside)
    share = (~flags).float().mean(dim=(0, 1))
    both = (~flags).all(dim=-1).float().mean()
    assert (share > 0.1).all() and both < 0.7 * share.min()
    together = build("ours", (6, 5), cache_dropout=0.0).train()
    _, flags = together._mask(torch.randn(64, 20, 11), valid, inside)
    assert (flags[..., 0] == flags[..., 1]).all()
