"""Features made elsewhere become a cache of the same form."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from checkpoints.errors import UserError
from features.cache import FeatureCache
from features.import_features import ImportFeatures, main
from features.run import Extract
from features.run import main as extract
from tests.finetune.corpus import LATE, TRAIN, VALIDATION

LENGTHS = TRAIN | VALIDATION


def config(corpus, source, out, **changes):
    return ImportFeatures(source=source, faces=corpus.faces, name="pose v1", out=out, **changes)


def test_one_array_per_video(corpus, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {id: rng.normal(size=(length + LATE + 2, 5)).astype(np.float32) for id, length in LENGTHS.items()}
    arrays["train0"] = arrays["train0"][:10]
    arrays["val0"][3] = np.nan
    for id, array in arrays.items():
        np.save(tmp_path / f"{id}.npy", array)
    main(config(corpus, tmp_path, tmp_path / "cache"))
    cache = FeatureCache(tmp_path / "cache")
    assert cache.ids == sorted(LENGTHS) and cache.dim == 5
    np.testing.assert_allclose(cache.read("two").features, arrays["two"][:12], atol=2e-3)
    late = cache.read("two_right")  # row 0 of the source is frame 1, whatever the sequence begins with
    assert late.first_frame == LATE
    np.testing.assert_allclose(late.features, arrays["two_right"][LATE - 1 : LATE + 7], atol=2e-3)
    assert cache.read("train0").valid.tolist() == [True] * 10 + [False] * 2
    assert np.flatnonzero(~cache.read("val0").valid).tolist() == [3]


def test_rate(corpus, tmp_path):
    """Features at 100 Hz for frames at 25 Hz: every fourth row."""
    for id in LENGTHS:
        np.save(tmp_path / f"{id}.npy", np.arange(80, dtype=np.float64)[:, None])
    main(config(corpus, tmp_path, tmp_path / "cache", rate=100.0))
    cache = FeatureCache(tmp_path / "cache")
    assert cache.read("val0").features[:, 0].tolist() == list(range(0, 48, 4))
    assert cache.read("two_right").features[0, 0] == 4 * (LATE - 1)


def test_csv_and_folders(corpus, tmp_path):
    for id in LENGTHS:
        (tmp_path / f"{id}.csv").write_text("frame, yaw, pitch\n1,0.5,1\n3,0.25,2\n")
    (tmp_path / "val0.csv").unlink()
    (tmp_path / "val0").mkdir()
    for frame in (2, 5):
        np.save(tmp_path / "val0" / f"{frame:05d}.npy", np.full(2, frame))
    main(config(corpus, tmp_path, tmp_path / "cache"))
    cache = FeatureCache(tmp_path / "cache")
    assert np.flatnonzero(cache.read("train1").valid).tolist() == [0, 2]
    assert cache.read("train1").features[2].tolist() == [0.25, 2]
    assert np.flatnonzero(cache.read("val0").valid).tolist() == [1, 4]


def test_the_name_says_what_the_features_are(corpus, tmp_path):
    np.save(tmp_path / "val0.npy", np.ones((12, 3)))
    main(config(corpus, tmp_path, tmp_path / "first"))
    np.save(tmp_path / "val0.npy", np.zeros((12, 3)))
    main(config(corpus, tmp_path, tmp_path / "second"))
    assert FeatureCache(tmp_path / "first").feature_id == FeatureCache(tmp_path / "second").feature_id
    assert FeatureCache(tmp_path / "first").ids == ["val0"]


def test_refusals(corpus, tmp_path):
    with pytest.raises(UserError, match="is not a folder of features"):
        main(config(corpus, tmp_path / "none", tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no ID.npy.*such as 'train0'"):
        main(config(corpus, tmp_path / "empty", tmp_path / "cache"))
    np.save(tmp_path / "train0.npy", np.zeros(7))
    with pytest.raises(UserError, match=r"train0.npy holds an array of shape \(7,\)"):
        main(config(corpus, tmp_path, tmp_path / "cache"))
    np.save(tmp_path / "train0.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(UserError, match=r"train0.npy cannot be read as an array"):
        main(config(corpus, tmp_path, tmp_path / "cache"))
    np.save(tmp_path / "train0.npy", np.zeros((7, 2)))
    np.save(tmp_path / "train1.npy", np.zeros((7, 3)))
    with pytest.raises(UserError, match="train0 has 2 features per frame and train1 has 3"):
        main(config(corpus, tmp_path, tmp_path / "cache"))
    np.save(tmp_path / "train1.npy", np.zeros((7, 2)))
    main(config(corpus, tmp_path, tmp_path / "cache"))  # what the refused import left is no obstacle
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(UserError, match="is not empty"):
        main(config(corpus, tmp_path, tmp_path / "full"))


def test_a_folder_of_others_is_left_alone(corpus, tmp_path):
    """A user's weights are not taken for a half-finished import."""
    np.save(tmp_path / "val0.npy", np.ones((12, 3)))
    out = tmp_path / "weights"
    out.mkdir()
    save_file({"w": np.ones(3)}, out / "precious.safetensors")
    with pytest.raises(UserError, match="is not empty"):
        main(config(corpus, tmp_path, out))
    assert (out / "precious.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [("val0.csv", "1,2\n3,4\n", "line 1: it holds numbers"), ("val0", None, "holds no NUMBER.npy")],
)
def test_sources_that_would_be_misread(corpus, tmp_path, name, text, message):
    (tmp_path / name).write_text(text) if text else (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=message):
        main(config(corpus, tmp_path, tmp_path / "cache"))
    with pytest.raises(UserError, match=r"--rate -25.0: expected 0 or more"):
        main(config(corpus, tmp_path, tmp_path / "cache", rate=-25.0))


def test_complex_numbers_are_refused(corpus, tmp_path):
    np.save(tmp_path / "val0.npy", np.ones((12, 3), complex))
    with pytest.raises(UserError, match="holds complex128, expected real numbers"):
        main(config(corpus, tmp_path, tmp_path / "cache"))


def test_odd_lengths_and_sizes_are_said(corpus, tmp_path, capsys):
    np.save(tmp_path / "val0.npy", np.ones((1200, 3)))
    np.save(tmp_path / "val1.npy", np.full((12, 3), 1e6))
    main(config(corpus, tmp_path, tmp_path / "cache"))
    out = capsys.readouterr().out
    assert "val0 has 1,200 rows for 12 frames" in out and "--rate" in out
    assert "12 rows of val1" in out and "float16" in out
    assert not FeatureCache(tmp_path / "cache").read("val1").valid.any()


def test_an_import_killed_in_a_write_is_done_again(corpus, tmp_path):
    """Such a kill leaves a temporary file; a crash of the machine leaves an empty one."""
    np.save(tmp_path / "val0.npy", np.ones((12, 3)))
    out = tmp_path / "cache"
    out.mkdir()
    (out / ".val0.safetensors.tmp").write_bytes(b"half")
    (out / "val0.safetensors").write_bytes(b"")
    main(config(corpus, tmp_path, out))
    assert FeatureCache(out).ids == ["val0"]


def test_extraction_does_not_write_over_an_unfinished_import(corpus, tmp_path):
    np.save(tmp_path / "val0.npy", np.ones((12, 3)))
    main(config(corpus, tmp_path, tmp_path / "cache"))
    (tmp_path / "cache" / "features.json").unlink()
    with pytest.raises(UserError, match=r"holds 'val0.safetensors', which features/run.py did not write"):
        extract(Extract(encoder=str(corpus.encoder), faces=corpus.faces, out=tmp_path / "cache", workers=0))
