import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints.artifact import write_sealed
from checkpoints.errors import UserError
from features.cache import FeatureCache, fill_nearest, finish_cache, write_features


def make_cache(path, sequences, dim=4, **fields):
    for id, (flags, first_frame) in sequences.items():
        valid = np.array(flags, bool)
        features = np.arange(len(valid))[:, None] + np.zeros(dim)
        write_features(
            path, id, features=features, valid=valid, time_s=np.arange(len(valid)) / 25, first_frame=first_frame
        )
    finish_cache(path, made_by="test", config={}, parents={}, feature_id="id", dim=dim, **fields)
    return FeatureCache(path)


def test_round_trip(tmp_path):
    cache = make_cache(tmp_path / "c", {"a_left": ([1, 1, 1], 4), "b": ([1], 1)}, trained_on={"expr": ["b"]})
    assert cache.ids == ["a_left", "b"] and cache.dim == 4 and cache.feature_id == "id"
    assert cache.trained_on == {"expr": ["b"]}
    assert cache.span("a_left") == (4, 6)
    read = cache.read("a_left")
    assert read.first_frame == 4 and read.features.dtype == np.float16
    np.testing.assert_array_equal(read.features[:, 0], [0, 1, 2])
    np.testing.assert_allclose(read.time_s, [0, 0.04, 0.08])


def test_cut_and_pad_to_the_labels_length(tmp_path):
    cache = make_cache(tmp_path / "c", {"a": ([1, 0, 1], 3)})
    read = cache.read("a", length=7)
    np.testing.assert_array_equal(read.valid, [0, 0, 1, 0, 1, 0, 0])
    np.testing.assert_array_equal(read.features[:, 0], [0, 0, 0, 0, 2, 2, 2])  # frame 4: two neighbours, earlier wins
    np.testing.assert_allclose(read.time_s, (np.arange(7) - 2) / 25)
    short = cache.read("a", length=4)
    np.testing.assert_array_equal(short.valid, [0, 0, 1, 0])
    np.testing.assert_array_equal(short.features[:, 0], [0, 0, 0, 0])


def test_no_face_anywhere_gives_zeros(tmp_path):
    read = make_cache(tmp_path / "c", {"a": ([0, 0], 1)}).read("a", 3)
    assert not read.valid.any() and not read.features.any()


def test_unknown_times_follow_the_known_ones(tmp_path):
    """As where a video breaks off, and the frames after that are only listed."""
    time_s = np.array([np.nan, 0.1, 0.2, np.nan, 0.4, 0.5, np.nan])
    flags = np.ones(7, bool)
    write_features(tmp_path, "a", features=np.zeros((7, 4)), valid=flags, time_s=time_s, first_frame=1)
    write_features(tmp_path, "b", features=np.zeros((7, 4)), valid=flags, time_s=time_s * np.nan, first_frame=1)
    finish_cache(tmp_path, made_by="test", config={}, parents={}, feature_id="id", dim=4)
    cache = FeatureCache(tmp_path)
    np.testing.assert_allclose(cache.read("a", 9).time_s, np.arange(9) / 10, atol=1e-12)
    assert np.isnan(cache.read("b", 9).time_s).all()


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(-5, 5), st.integers(0, 40))
@settings(max_examples=200)
def test_fill_nearest_against_brute_force(valid, start, count):
    valid = np.array(valid)
    rows = np.arange(start, start + count)
    filled = fill_nearest(np.arange(len(valid), dtype=float)[:, None] + 1, valid, rows)
    known = np.flatnonzero(valid)
    for row, value in zip(rows, filled[:, 0], strict=True):
        expected = 0 if not len(known) else min(known, key=lambda k: (abs(k - row), k)) + 1
        assert value == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite_features_are_refused_with_the_frame(tmp_path, value):
    features = np.zeros((5, 3), np.float16)
    features[2, 1] = value
    with pytest.raises(UserError, match="frame 12 "):
        write_features(tmp_path, "a", features=features, valid=np.ones(5, bool), time_s=np.zeros(5), first_frame=10)
    # where there is no face nobody reads the row
    valid = np.arange(5) != 2
    write_features(tmp_path, "a", features=features, valid=valid, time_s=np.zeros(5), first_frame=10)
    finish_cache(tmp_path, made_by="test", config={}, parents={}, feature_id="id", dim=3)
    assert np.isfinite(FeatureCache(tmp_path).read("a").features).all()


def test_faults_have_messages(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        FeatureCache(tmp_path / "none")
    write_features(tmp_path, "a", features=np.zeros((5, 3)), valid=np.ones(5), time_s=np.zeros(5), first_frame=1)
    with pytest.raises(UserError, match="no complete feature cache"):
        FeatureCache(tmp_path)
    with pytest.raises(UserError, match="3-d features, the cache 4-d"):
        finish_cache(tmp_path, made_by="test", config={}, parents={}, feature_id="id", dim=4)
    finish_cache(tmp_path, made_by="test", config={}, parents={}, feature_id="id", dim=3)
    cache = FeatureCache(tmp_path)
    with pytest.raises(UserError, match="no sequence 'b'"):
        cache.read("b")
    write_features(tmp_path, "a", features=np.zeros((4, 3)), valid=np.ones(4), time_s=np.zeros(4), first_frame=1)
    with pytest.raises(UserError, match=r"a\.safetensors was changed after .*features\.json was written"):
        cache.read("a")
    finish_cache(tmp_path, made_by="test", config={}, parents={}, feature_id="id", dim=3)
    cache = FeatureCache(tmp_path)
    assert len(cache.read("a")) == 4
    write_features(tmp_path, "a", features=np.zeros((5, 3)), valid=np.ones(5), time_s=np.zeros(5), first_frame=1)
    with pytest.raises(UserError, match="header says 4 frames"):  # while it is open
        cache.read("a")
    (tmp_path / "a.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="cannot be read"):
        cache.read("a")
    with pytest.raises(UserError, match="was changed after"):
        FeatureCache(tmp_path).check(again=True)
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(UserError, match=r"a\.safetensors cannot be read"):
        FeatureCache(tmp_path).read("a")
    write_features(tmp_path, "a", features=np.zeros((4, 3)), valid=np.ones(4), time_s=np.zeros(4), first_frame=1)
    with pytest.raises(UserError, match="do not describe the same frames"):
        write_features(tmp_path, "c", features=np.zeros((4, 3)), valid=np.ones(5), time_s=np.zeros(4), first_frame=1)
    with pytest.raises(UserError, match="cannot name a file"):
        write_features(tmp_path, "a/b", features=np.zeros((4, 3)), valid=np.ones(4), time_s=np.zeros(4), first_frame=1)
    with pytest.raises(UserError, match="nothing to finish"):
        finish_cache(tmp_path / "empty", made_by="test", config={}, parents={}, feature_id="id", dim=3)


def test_a_header_must_say_what_taught_the_encoder(tmp_path):
    arrays = {"features": np.ones((2, 3)), "valid": np.ones(2, bool), "time_s": np.arange(2) / 30}
    write_features(tmp_path, "a", **arrays, first_frame=1)
    finish_cache(tmp_path, made_by="test", config={}, parents={}, feature_id="id", dim=3)
    header = json.loads((tmp_path / "features.json").read_text())
    for change, message in (({"trained_on": None}, "trained_on is None"), ({"dim": True}, "dim is True")):
        (tmp_path / "features.json").write_text(json.dumps(header | change))
        with pytest.raises(UserError, match=f"features.json is damaged or of another version: {message}"):
            FeatureCache(tmp_path)
    header["sequences"]["a"]["first_frame"] = 2
    (tmp_path / "features.json").write_text(json.dumps(header))
    with pytest.raises(UserError, match=r"features\.json was changed after it was written"):
        FeatureCache(tmp_path)
    write_sealed(tmp_path / "features.json", header)
    with pytest.raises(UserError, match=r"from frame 1 on, the cache's header says .* from frame 2 on"):
        FeatureCache(tmp_path).read("a")
    del header["trained_on"]
    (tmp_path / "features.json").write_text(json.dumps(header))
    with pytest.raises(UserError, match="trained_on is missing"):
        FeatureCache(tmp_path)
