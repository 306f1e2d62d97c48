"""Heads with sound on a clip: the sound is made as for the caches they were trained on."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from checkpoints.errors import UserError
from features.cache import FeatureCache
from features.run import Extract
from features.run import main as extract
from features.sound import LogMel
from features.speech_model import SpeechModel
from preprocessing.faces import FacesStore
from temporal.heads import load_head
from temporal.predict import predict_cached
from temporal.smoothing import Smoothing
from tests.features.talkies import speech_model
from tests.wildaffect.inference.conftest import ARCHITECTURE, make_encoder, make_head
from tests.wildaffect.inference.test_clip import DARK, TIMES, BrightSquare, write_clip
from wildaffect.cli import Doctor, Export, Predict
from wildaffect.inference.predictor import Predictor
from wildaffect.inference.table import matrix

NAMES = ["valence", "arousal"]
SEEING = replace(ARCHITECTURE, fusion="gated", fusion_width=16, valid_flag=True)
SILENT = "There is no sound: heads trained with sound predict from the faces alone."


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "spoken.mp4", TIMES, dark=DARK, sound="aac", beep=1.0)
    write_clip(folder / "silent.mp4", TIMES, dark=DARK)
    write_clip(folder / "late.mkv", TIMES, dark=DARK, sound="libopus", beep=3.0, first=2000)
    return folder


@pytest.fixture(scope="module")
def run(encoder, tmp_path_factory):
    """Heads that see and hear."""
    return make_head(tmp_path_factory.mktemp("av") / "va", "va", [encoder], architecture=SEEING, ears=[LogMel()])


@pytest.fixture(autouse=True)
def drawn_detector(monkeypatch):
    monkeypatch.setattr(Predictor, "detector", BrightSquare())


@pytest.mark.parametrize("name", ["spoken.mp4", "late.mkv"])
def test_extraction_and_predictor_agree(run, encoder, clips, tmp_path, name):
    """On the sound to the last bit, and on predictions from caches of both."""
    predictor = Predictor(run, device="cpu")
    result = predictor.predict(clips / name, progress=False)
    faces = shutil.copytree(result.store.path, tmp_path / "faces")
    video = name.partition(".")[0]
    extract(Extract(audio="logmel", source=(clips,), faces=faces, out=tmp_path / "sound"))
    extract(Extract(encoder=str(encoder[0]), faces=faces, out=tmp_path / "seen", workers=0))
    cached = FeatureCache(tmp_path / "sound").read(video)
    heard = predictor.hear(FacesStore(faces), video, clips / name)
    (sound,) = predictor.models.sounds
    assert np.array_equal(heard.features[video][sound], cached.features)
    assert np.array_equal(heard.valid[video][sound], cached.valid)
    values, _ = predict_cached([load_head(run)], [FeatureCache(tmp_path / n) for n in ("seen", "sound")], video)
    face = result.table["face"].to_numpy(zero_copy_only=False)
    assert np.allclose(matrix(result.table, NAMES)[face], values["va"][face], atol=5e-3)


def test_sound_counts_and_a_clip_without_it_says_so(run, clips, tmp_path):
    spoken, silent = tmp_path / "spoken", tmp_path / "silent"
    Predict(clips=(clips / "spoken.mp4", clips / "silent.mp4"), heads=(run,), out=tmp_path, annotate=False).run()
    assert SILENT in json.loads((silent / "predictions.json").read_text())["warnings"]
    assert SILENT in (silent / "report.html").read_text()
    assert not any("sound" in text for text in json.loads((spoken / "predictions.json").read_text())["warnings"])
    tables = [Predictor(run).predict(clips / name, progress=False).table for name in ("spoken.mp4", "silent.mp4")]
    face = tables[0]["face"].to_numpy(zero_copy_only=False)
    heard, unheard = (matrix(table, NAMES)[face] for table in tables)
    assert np.isfinite(unheard).all() and np.abs(heard - unheard).max() > 0.01


def test_sound_of_a_part_is_noted(run, clips):
    result = Predictor(run).predict(clips / "late.mkv", progress=False)
    assert any("There is sound for only" in text for text in result.warnings)


def test_a_faces_store_has_no_sound(run, store):
    (result,) = Predictor(run).predict(store, progress=False)
    assert SILENT in result.warnings and len(result) == 95


def test_heads_that_only_see_are_not_told_about_sound(heads, clips):
    assert SILENT not in Predictor(heads).predict(clips / "silent.mp4", progress=False).warnings


def test_heads_that_only_hear(clips, tmp_path):
    deaf = replace(ARCHITECTURE, valid_flag=True)
    result = Predictor(make_head(tmp_path / "va", "va", [], architecture=deaf, ears=[LogMel()])).predict(
        clips / "spoken.mp4", progress=False
    )
    assert np.isfinite(matrix(result.table, NAMES)[result.table["face"].to_numpy(zero_copy_only=False)]).all()


def test_a_head_that_reads_one_frame_is_exported(encoder, tmp_path):
    """As those of the starter weights do."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    single = replace(ARCHITECTURE, tcn_channels=(), layers=0, window=1, stride=1)
    made = make_head(tmp_path / "va", "va", [encoder], architecture=single)
    Export(heads=(made,), out=tmp_path / "bundle", onnx=True).run()


@pytest.mark.parametrize("kind", ["logmel", "wav2vec2", "whisper"])
def test_a_bundle_carries_what_hears(clips, tmp_path, kind, capsys):
    encoder = (tmp_path / "made" / "encoder", make_encoder(tmp_path / "made" / "encoder"))
    ear = LogMel() if kind == "logmel" else SpeechModel(str(speech_model(tmp_path / "made" / kind, kind)))
    made = make_head(tmp_path / "made" / "va", "va", [encoder], architecture=SEEING, ears=[ear])
    expected = matrix(Predictor(made).predict(clips / "spoken.mp4", progress=False).table, NAMES)
    Export(heads=(made,), out=tmp_path / "bundle").run()
    assert "2 inputs" in capsys.readouterr().out
    shutil.move(tmp_path / "made", tmp_path / "away")
    moved = shutil.move(tmp_path / "bundle", tmp_path / "moved")
    again = matrix(Predictor(moved).predict(clips / "spoken.mp4", progress=False).table, NAMES)
    assert np.array_equal(again, expected, equal_nan=True)
    Doctor(verify=tmp_path / "moved").run()
    assert "sound" in (tmp_path / "moved" / "README.md").read_text()


def test_a_head_with_sound_runs_in_onnxruntime(run, clips, tmp_path):
    """The sound itself is made as before; a clip without any takes the same path through the graph."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    Export(heads=(run,), out=tmp_path / "bundle", onnx=True).run()
    plain, graphs = Predictor(run, device="cpu"), Predictor(tmp_path / "bundle", runtime="onnx")
    plain.precision = "fp32"
    for name in ("spoken.mp4", "silent.mp4", "late.mkv"):
        expected, found = (matrix(p.predict(clips / name, progress=False).table, NAMES) for p in (plain, graphs))
        assert np.allclose(found, expected, atol=1e-3, equal_nan=True)


def test_another_speech_model_is_refused(encoder, tmp_path):
    folder = speech_model(tmp_path / "model", "hubert")
    ear = SpeechModel(str(folder))
    made = make_head(tmp_path / "va", "va", [encoder], architecture=SEEING, ears=[ear])
    speech_model(folder, "hubert", seed=1)
    with pytest.raises(UserError, match="is not the one it was trained with"):
        Predictor(made)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"is not where it was .*model\)"):
        Predictor(made)


def test_a_running_video_has_no_sound(encoder, clips, tmp_path):
    framewise = {"architecture": replace(SEEING, tcn_channels=(), layers=0, window=20), "smoothing": Smoothing()}
    predictor = Predictor(make_head(tmp_path / "va", "va", [encoder], ears=[LogMel()], **framewise), device="cpu")
    live = np.array([[row[name] for name in NAMES] for row in predictor.stream(clips / "spoken.mp4")][:20], float)
    finished = matrix(predictor.predict(clips / "silent.mp4", progress=False).table, NAMES)[:20]
    assert np.allclose(live, finished, atol=2e-4)
