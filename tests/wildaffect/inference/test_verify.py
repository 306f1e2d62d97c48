"""Artifacts whose content is not what their headers say are refused, and `wildaffect doctor --verify` finds them."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from checkpoints import artifact
from checkpoints.artifact import file_hash, fingerprint, write_sealed
from checkpoints.encoder import load_encoder
from checkpoints.errors import UserError
from temporal.heads import load_head
from tests.wildaffect.inference.conftest import make_encoder, make_head
from tests.wildaffect.inference.test_clip import TIMES, BrightSquare, write_clip
from wildaffect.cli import Doctor, Export, Predict
from wildaffect.inference.models import check_bundle, load_models
from wildaffect.inference.predictor import Predictor


def flip_signs(path):
    save_file({name: -tensor for name, tensor in load_file(path).items()}, path)


@pytest.fixture
def run(tmp_path):
    encoder = (tmp_path / "encoder", make_encoder(tmp_path / "encoder"))
    return make_head(tmp_path / "va", "va", [encoder])


def test_weights_that_were_changed_are_refused(run, tmp_path):
    load_models([run])
    flip_signs(tmp_path / "encoder" / "model.safetensors")
    for load in (lambda: load_encoder(tmp_path / "encoder"), lambda: load_models([run])):
        with pytest.raises(UserError, match=r"encoder/model\.safetensors was changed after .*config\.json"):
            load()


def test_an_encoders_fingerprint_is_that_of_its_weights(tmp_path):
    """Editing the header as well gives another feature id, not the old one."""
    make_encoder(tmp_path / "encoder")
    before = load_encoder(tmp_path / "encoder").fingerprint
    flip_signs(tmp_path / "encoder" / "model.safetensors")
    header = json.loads((tmp_path / "encoder" / "config.json").read_text())
    with pytest.raises(UserError):
        load_encoder(tmp_path / "encoder")
    header["weights"] = fingerprint(tmp_path / "encoder" / "model.safetensors")
    write_sealed(tmp_path / "encoder" / "config.json", header)
    assert load_encoder(tmp_path / "encoder").fingerprint != before


def test_a_head_that_was_changed_is_refused(run):
    (weights,) = run.rglob("model.safetensors")
    flip_signs(weights)
    with pytest.raises(UserError, match=r"model\.safetensors was changed after"):
        load_head(run)


def test_a_bundle_is_what_its_list_says(run, tmp_path):
    Export(heads=(run,), out=tmp_path / "bundle").run()
    load_models([tmp_path / "bundle"])
    (tmp_path / "bundle" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt is not what .*bundle\.json lists"):
        load_models([tmp_path / "bundle"])
    (tmp_path / "bundle" / "notes.txt").unlink()
    (tmp_path / "bundle" / "README.md").write_text("better than it is")
    with pytest.raises(UserError, match=r"README\.md is not what"):
        load_models([tmp_path / "bundle"])
    (tmp_path / "bundle" / "bundle.json").unlink()
    with pytest.raises(UserError, match=r"it has no bundle\.json"):
        load_models([tmp_path / "bundle"])


def test_loading_a_bundle_hashes_its_weights_once(run, tmp_path, monkeypatch):
    bundle = tmp_path / "bundle"
    Export(heads=(run,), out=bundle).run()
    hashed = []
    monkeypatch.setattr(artifact, "file_hash", lambda path: hashed.append(Path(path)) or file_hash(path))
    load_models([bundle])
    weights = sorted(bundle.rglob("model.safetensors"))
    assert len(weights) == 2 and sorted(path for path in hashed if path.name == "model.safetensors") == weights
    for path in weights:
        whole = path.read_bytes()
        flip_signs(path)
        with pytest.raises(UserError, match=r"model\.safetensors was changed after"):
            load_models([bundle])
        with pytest.raises(UserError, match=r"model\.safetensors is not what .*bundle\.json lists"):
            check_bundle(bundle)
        path.write_bytes(whole)


def test_doctor_verifies_a_folder(run, store, tmp_path, capsys):
    Doctor(verify=tmp_path).run()
    said = capsys.readouterr().out
    assert said.count("as its header says") == 2 and "encoder" in said and "head" in said
    Doctor(verify=store.path).run()
    assert "faces store" in capsys.readouterr().out
    flip_signs(tmp_path / "encoder" / "model.safetensors")
    with pytest.raises(UserError, match=r"1 of 2 artifacts .* are not what their headers say"):
        Doctor(verify=tmp_path).run()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no faces store"):
        Doctor(verify=tmp_path / "empty").run()


def test_doctor_verifies_predictions(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Predictor, "detector", BrightSquare())
    Predict(clips=(write_clip(tmp_path / "a.mp4", TIMES[:3]),), heads=(run,), out=tmp_path / "out").run()
    Doctor(verify=tmp_path / "out").run()
    assert f"clip predictions {tmp_path / 'out' / 'a'}: as its header says" in capsys.readouterr().out
    with (tmp_path / "out" / "a" / "predictions.csv").open("a") as file:
        file.write("\n")
    with pytest.raises(UserError, match=r"1 of 1 artifacts .*predictions\.csv was deleted or changed"):
        Doctor(verify=tmp_path / "out").run()
