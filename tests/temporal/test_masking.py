import numpy as np
import pytest
import torch

from temporal.masking import SPAN, RandomMasking, fill_past


def inputs(batch=4, time=200, dim=6):
    torch.manual_seed(0)
    return (
        torch.randn(batch, time, dim),
        torch.ones(batch, time, dtype=torch.bool),
        torch.ones(batch, time, dtype=torch.bool),
    )


@pytest.mark.parametrize("form", ["frames", "spans", "elements"])
@pytest.mark.parametrize("fill", ["nearest", "zero"])
def test_masking_is_off_in_evaluation(form, fill):
    features, valid, inside = inputs()
    masking = RandomMasking(form, 0.5, fill).eval()
    out, flags = masking(features, valid, inside)
    torch.testing.assert_close(out, features)
    assert flags.equal(valid)


@pytest.mark.parametrize("form", ["frames", "spans"])
@pytest.mark.parametrize("ratio", [0.2, 0.5])
def test_frames_are_hidden_at_the_ratio_each_sample_for_itself(form, ratio):
    features, valid, inside = inputs(64, 400)
    out, flags = RandomMasking(form, ratio, "zero")(features, valid, inside)
    assert (~flags).float().mean().item() == pytest.approx(ratio, abs=0.03)
    assert not (flags == flags[0]).all()
    assert out[~flags].eq(0).all()
    torch.testing.assert_close(out[flags], features[flags])


def test_spans_have_their_mean_length():
    features, valid, inside = inputs(64, 1000, 1)
    _, flags = RandomMasking("spans", 0.3, "zero")(features, valid, inside)
    hidden = (~flags).int()
    starts = ((hidden[:, 1:] - hidden[:, :-1]) == 1).sum().item()
    assert hidden.sum().item() / starts == pytest.approx(SPAN, rel=0.1)


def test_elements_are_zeroed_without_rescaling_and_flags_stay():
    features, valid, inside = inputs(16, 300)
    out, flags = RandomMasking("elements", 0.5, "nearest")(features, valid, inside)
    hidden = out == 0
    assert hidden.float().mean().item() == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(out[~hidden], features[~hidden])
    assert flags.all() and not hidden.all(dim=-1).any(dim=0).all()


def test_nearest_fill_is_what_the_cache_does_at_test_time():
    from features.cache import fill_nearest

    features, valid, inside = inputs(3, 60)
    out, flags = RandomMasking("frames", 0.6, "nearest")(features, valid, inside)
    for sample, seen, filled in zip(features, flags, out, strict=True):
        expected = fill_nearest(sample.numpy(), seen.numpy(), torch.arange(60).numpy())
        torch.testing.assert_close(filled, torch.from_numpy(expected))


def test_missing_frames_are_filled_like_hidden_ones_at_test_time():
    features, valid, inside = inputs()
    valid = valid.clone()
    valid[:, 5:9] = False
    masking = RandomMasking("frames", 0.5, "zero").eval()
    out, _ = masking(features, valid, inside)
    assert out[:, 5:9].eq(0).all()
    torch.testing.assert_close(out[:, :5], features[:, :5])


def test_padding_is_never_the_nearest_frame():
    features, valid, inside = inputs(8, 30)
    inside = inside.clone()
    inside[:, 20:] = False
    features[:, 20:] = 99.0
    out, _ = RandomMasking("frames", 0.7, "nearest")(features, valid, inside)
    assert (out[:, :20] < 90).all()


def test_span_masking_helps_where_frames_are_missing():
    """A signal in noisy features, half of whose frames are missing in spans and set to zero, as in the paper."""
    from scipy.ndimage import gaussian_filter1d

    from temporal.network import HeadNetwork
    from temporal.recipes import Architecture

    rng = np.random.default_rng(1)
    signal = gaussian_filter1d(rng.normal(size=(192, 64)), 6, axis=1)[..., None]
    signal = (signal / signal.std()).astype(np.float32)
    features = (signal * rng.normal(size=6) + rng.normal(0, 0.3, (192, 64, 6))).astype(np.float32)
    taught, tested = slice(128), slice(128, 192)
    torch.manual_seed(0)
    gone = RandomMasking("spans", 0.5, "zero")._hidden(64, 64, torch.device("cpu")).numpy()
    inside = torch.ones(128, 64, dtype=torch.bool)

    def error_at_missing_frames(form):
        torch.manual_seed(1)
        options = {"window": 64, "valid_flag": True, "mask_form": form, "mask_ratio": 0.4, "mask_fill": "zero"}
        network = HeadNetwork(Architecture(**options, tcn_channels=(16, 16, 16)), (6,), 1)
        optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
        x, y = torch.from_numpy(features[taught]), torch.from_numpy(signal[taught])
        for _ in range(120):
            chosen = torch.randint(128, (16,))
            outputs = network(x[chosen], inside[chosen, :, None], inside[chosen])
            (outputs - y[chosen]).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            outputs = network.eval()(
                torch.from_numpy(features[tested]), torch.from_numpy(~gone)[..., None], inside[:64]
            )
        return float(np.square(outputs.numpy() - signal[tested])[gone].mean())

    assert error_at_missing_frames("spans") < 0.85 * error_at_missing_frames("none")


def test_a_causal_fill_takes_the_last_frame_and_never_a_later_one():
    features = torch.arange(1.0, 7)[None, :, None]
    seen = torch.tensor([[False, True, False, False, True, False]])
    assert fill_past(features, seen)[0, :, 0].tolist() == [0, 2, 2, 2, 5, 5]
