import json
import shutil

import numpy as np
import pytest

from checkpoints.errors import UserError
from tests.wildaffect.inference.conftest import make_encoder, make_head
from wildaffect.cli import Export
from wildaffect.inference.models import load_models
from wildaffect.inference.predictor import Predictor
from wildaffect.inference.table import matrix

NAMES = ["valence", "arousal", "p_Fear", "p_AU12"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Heads and their encoder, for a bundle that must work without them, and the folder they are in."""
    folder = tmp_path_factory.mktemp("bundle")
    run = folder / "made" / "finetune"
    encoder = (run, make_encoder(run / "encoder"))  # a head may name the encoder's run
    runs = [make_head(folder / "made" / "joint", "joint", [encoder])]
    yield runs, folder
    shutil.rmtree(folder)


def test_a_bundle_predicts_the_same_elsewhere_also_by_onnxruntime(bundle, store):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    runs, folder = bundle
    Export(heads=tuple(runs), out=folder / "bundle", onnx=True).run()
    before = Predictor(runs)
    before.precision = "fp32"
    expected = matrix(before.predict_faces(store, "clip"), NAMES)
    (folder / "bundle").rename(folder / "moved")
    shutil.move(folder / "made", folder / "away")
    moved = Predictor(folder / "moved")
    moved.precision = "fp32"
    assert np.array_equal(matrix(moved.predict_faces(store, "clip"), NAMES), expected, equal_nan=True)
    onnx = Predictor(folder / "moved", runtime="onnx")
    assert np.allclose(matrix(onnx.predict_faces(store, "clip"), NAMES), expected, atol=5e-3, equal_nan=True)
    header = json.loads((folder / "moved" / "bundle.json").read_text())
    assert set(header["onnx_difference"]) == {"encoder 0", "head joint"}
    assert 0 < max(header["onnx_difference"].values()) < 1e-4
    card = (folder / "moved" / "README.md").read_text()
    assert "drawn faces" in card and "| joint (va) | 0.400 | 0.100 |" in card and "Must not be used" in card
    with pytest.raises(UserError, match="not empty"):
        Export(heads=(folder / "moved",), out=folder / "moved").run()


def test_default_heads_can_be_installed(heads, tmp_path, monkeypatch):
    monkeypatch.delenv("WILDAFFECT_HEADS", raising=False)
    monkeypatch.setattr("wildaffect.inference.models.DEFAULT", tmp_path / "default")
    Export(heads=tuple(heads), out=tmp_path / "default").run()
    assert [head.name for head in load_models().heads] == ["au", "expr", "va"]


def test_graphs_are_asked_for_by_name(heads):
    with pytest.raises(UserError, match="--onnx"):
        Predictor(heads, runtime="onnx")


def test_an_export_that_fails_leaves_nothing(heads, tmp_path, monkeypatch):
    def broken(*_):
        raise UserError("the disk is full")

    monkeypatch.setattr("wildaffect.inference.bundle.write_product_card", broken)
    with pytest.raises(UserError, match="disk is full"):
        Export(heads=tuple(heads), out=tmp_path / "bundle").run()
    assert list(tmp_path.iterdir()) == []
