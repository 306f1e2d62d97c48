import tracemalloc

import numpy as np
import pytest
import torch

from checkpoints.errors import UserError
from temporal.heads import load_head
from temporal.predict import decode, predict_sequence


@pytest.mark.parametrize("length", [1, 5, 16, 17, 200])
def test_every_frame_has_one_finite_prediction(runs, length):
    head = load_head(runs / "joint")
    rng = np.random.default_rng(0)
    values = predict_sequence(head, rng.normal(size=(length, 12)).astype(np.float16), rng.random(length) > 0.3, rate=25)
    assert {name: item.shape for name, item in values.items()} == {
        "va": (length, 2),
        "expr": (length, 8),
        "au": (length, 12),
    }
    assert all(np.isfinite(item).all() for item in values.values())
    assert np.abs(values["va"]).max() <= 1
    np.testing.assert_allclose(values["expr"].sum(1), 1, atol=1e-5)
    assert decode([head], "au", values["au"], 25).shape == (length, 12)
    assert decode([head], "expr", values["expr"], 25).shape == (length, 1)


def test_overlapping_windows_are_averaged_before_decoding(runs):
    head = load_head(runs / "expr")
    features = np.random.default_rng(0).normal(size=(24, 12)).astype(np.float32)
    raw = predict_sequence(head, features, np.ones(24, bool), smooth=False)["expr"]
    windows = []
    for start in (0, 8):
        part = torch.from_numpy(features[start : start + 16])[None]
        with torch.no_grad():
            out = head.network(part, torch.ones(1, 16, 1, dtype=torch.bool), torch.ones(1, 16, dtype=torch.bool))
        windows.append(out.softmax(-1)[0].numpy())
    expected = np.concatenate([windows[0][:8], (windows[0][8:] + windows[1][:8]) / 2, windows[1][8:]])
    np.testing.assert_allclose(raw, expected, atol=1e-6)


def test_smoothing_is_applied_and_can_be_left_out(runs):
    from temporal.smoothing import Smoothing

    head = load_head(runs / "va")
    head.smoothing["va"] = Smoothing("box", 1.0, "seconds")
    features = np.random.default_rng(0).normal(size=(60, 12))
    smooth, raw = (predict_sequence(head, features, np.ones(60), rate=25, smooth=s)["va"] for s in (True, False))
    np.testing.assert_allclose(smooth, head.smoothing["va"].on_values(raw, 25))
    assert np.abs(np.diff(smooth, axis=0)).sum() < np.abs(np.diff(raw, axis=0)).sum()


def test_features_of_another_width_or_id_are_refused(runs):
    head = load_head(runs / "va")
    with pytest.raises(UserError, match=r"reads \[T, 12\]"):
        predict_sequence(head, np.zeros((5, 13)), np.ones(5))
    with pytest.raises(UserError, match="of another encoder, view or framing"):
        head.check_inputs(["something else"])
    head.check_inputs(["id of cache"])


def test_memory_does_not_grow_with_the_windows(runs):
    """Batches of windows are made one at a time: a video ten times as long needs little more than its own rows."""
    head = load_head(runs / "va")

    def peak(length):
        features, valid = np.zeros((length, 12), np.float16), np.ones(length, bool)
        tracemalloc.start()
        predict_sequence(head, features, valid)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(100)
    assert peak(50_000) < peak(5_000) + 45_000 * 200  # 200 bytes a frame: the outputs and their smoothing


def test_damaged_heads_are_refused(runs, tmp_path):
    import shutil

    shutil.copytree(runs / "va" / "head", tmp_path / "head")
    (tmp_path / "head" / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="cannot be read"):
        load_head(tmp_path)
    (tmp_path / "head" / "config.json").unlink()
    with pytest.raises(UserError, match="no complete head"):
        load_head(tmp_path)
    with pytest.raises(UserError):
        load_head(tmp_path / "none")


def test_a_value_that_is_not_finite_never_leaves_the_head(runs):
    head = load_head(runs / "expr")
    torch.nn.init.constant_(head.network.readout.bias, float("nan"))
    with pytest.raises(UserError, match="expr head predicts no finite value for 40 of 40 frames"):
        predict_sequence(head, np.zeros((40, 12), np.float16), np.ones(40, bool))
