import pytest
import torch

from temporal.masking import SPAN, RandomMasking


def inputs(batch=4, time=200, dim=6):
    torch.manual_seed(0)
    return (
        torch.randn(batch, time, dim),
        torch.ones(batch, time, dtype=torch.bool),
        torch.ones(batch, time, dtype=torch.bool),
    )


@pytest.mark.parametrize("form", ["frames", "spans", "elements"])
@pytest.mark.parametrize("fill", ["nearest", "zero", "token"])
def test_masking_is_off_in_evaluation(form, fill):
    features, valid, inside = inputs()
    masking = RandomMasking(form, 0.5, fill, 6).eval()
    out, flags = masking(features, valid, inside)
    torch.testing.assert_close(out, features)
    assert flags.equal(valid)


@pytest.mark.parametrize("form", ["frames", "spans"])
@pytest.mark.parametrize("ratio", [0.2, 0.5])
def test_frames_are_hidden_at_the_ratio_each_sample_for_itself(form, ratio):
    features, valid, inside = inputs(64, 400)
    out, flags = RandomMasking(form, ratio, "zero", 6)(features, valid, inside)
    assert (~flags).float().mean().item() == pytest.approx(ratio, abs=0.03)
    assert not (flags == flags[0]).all()
    assert out[~flags].eq(0).all()
    torch.testing.assert_close(out[flags], features[flags])


def test_spans_have_their_mean_length():
    features, valid, inside = inputs(64, 1000, 1)
    _, flags = RandomMasking("spans", 0.3, "zero", 1)(features, valid, inside)
    hidden = (~flags).int()
    starts = ((hidden[:, 1:] - hidden[:, :-1]) == 1).sum().item()
    assert hidden.sum().item() / starts == pytest.approx(SPAN, rel=0.1)


def test_elements_are_zeroed_without_rescaling_and_flags_stay():
    features, valid, inside = inputs(16, 300)
    out, flags = RandomMasking("elements", 0.5, "nearest", 6)(features, valid, inside)
    hidden = out == 0
    assert hidden.float().mean().item() == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(out[~hidden], features[~hidden])
    assert flags.all() and not hidden.all(dim=-1).any(dim=0).all()


def test_nearest_fill_is_what_the_cache_does_at_test_time():
    from finetune.features import fill_nearest

    features, valid, inside = inputs(3, 60)
    out, flags = RandomMasking("frames", 0.6, "nearest", 6)(features, valid, inside)
    for sample, seen, filled in zip(features, flags, out, strict=True):
        expected = fill_nearest(sample.numpy(), seen.numpy(), torch.arange(60).numpy())
        torch.testing.assert_close(filled, torch.from_numpy(expected))


def test_missing_frames_are_filled_like_hidden_ones_at_test_time():
    features, valid, inside = inputs()
    valid = valid.clone()
    valid[:, 5:9] = False
    masking = RandomMasking("frames", 0.5, "token", 6).eval()
    with torch.no_grad():
        masking.token.fill_(3.0)
    out, _ = masking(features, valid, inside)
    assert out[:, 5:9].eq(3).all()
    torch.testing.assert_close(out[:, :5], features[:, :5])


def test_padding_is_never_the_nearest_frame():
    features, valid, inside = inputs(8, 30)
    inside = inside.clone()
    inside[:, 20:] = False
    features[:, 20:] = 99.0
    out, _ = RandomMasking("frames", 0.7, "nearest", 6)(features, valid, inside)
    assert (out[:, :20] < 90).all()
