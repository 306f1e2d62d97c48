"""The sound of a store's videos as a cache: rows by time, flags, sharing, resuming, refusals, speech models."""

import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints.errors import UserError
from features import speech_model as speech
from features.cache import FeatureCache
from features.run import Extract, main
from features.sound import LogMel, hear, mel_bands
from features.speech_model import SpeechModel
from preprocessing.faces import FacesStore
from preprocessing.sound import RATE
from tests.features.talkies import LATE, loudest, speech_model, store_of, talkies
from tests.finetune.corpus import make_encoder
from tests.preprocessing.movies import clicks_at, write_talkie


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return talkies(tmp_path_factory.mktemp("talkies") / "videos")


@pytest.fixture(scope="module")
def faces(videos, tmp_path_factory):
    return store_of(videos, tmp_path_factory.mktemp("store") / "faces")


@pytest.fixture(scope="module")
def cache(videos, faces, tmp_path_factory):
    out = tmp_path_factory.mktemp("sound") / "logmel"
    main(Extract(audio="logmel", source=(videos,), faces=faces, out=out))
    return out


def content(cache):
    return {file.name: file.read_bytes() for file in cache.iterdir() if file.suffix != ".html"}


@pytest.mark.parametrize(
    ("id", "clicks"),
    [("steady", [0.52, 1.48]), ("uneven", [0.235, 1.12, 1.72]), ("uneven_2", [0.235, 1.12, 1.72]), ("late", [0.96])],
)
def test_clicks_are_in_the_rows_of_their_frames(cache, id, clicks):
    found = FeatureCache(cache).read(id)
    for click in clicks:
        after = np.searchsorted(found.time_s, click)
        half = np.diff(found.time_s)[max(after - 2, 0) : after + 2].max() / 2
        assert abs(loudest(found.features, found.valid, found.time_s, click) - click) <= half + 1e-6


@pytest.mark.parametrize("step", [8, 17, 40, 133])
def test_clicks_anywhere_are_off_by_half_a_frame_at_most(tmp_path, step):
    """At 7.5 to 120 frames per second; between two frames, by half of the 5 ms between spectra more."""
    clicks = [0.4 + 0.617 * n for n in range(6)]
    times = list(range(0, 4000, step))
    path = write_talkie(tmp_path / "a.mkv", times, [clicks_at(clicks, 16_000, 4.0)], rate=16_000)
    time_s = np.array(times) / 1000
    features, valid = hear(LogMel(), path, time_s, print)
    assert valid.all() and features.dtype == np.float16
    for click in clicks:
        assert abs(loudest(features, valid, time_s, click) - click) <= step / 2000 + 0.0025 + 1e-6


def test_where_there_is_no_sound_rows_are_flagged(cache):
    opened = FeatureCache(cache)
    late = opened.read("late")
    assert np.array_equal(late.valid, (late.time_s > 0.59) & (late.time_s < 1.62))
    silent = opened.read("silent")
    assert not silent.valid.any() and not silent.features.any() and len(silent) == 50
    assert opened.read("steady").valid.all() and opened.read("uneven").valid.all()


def test_two_people_hear_the_same(cache):
    main_person, other = (FeatureCache(cache).read(id) for id in ("uneven", "uneven_2"))
    assert other.first_frame == LATE
    assert np.array_equal(main_person.features[LATE - 1 :], other.features)


def test_what_the_cache_says(cache, faces):
    found = FeatureCache(cache)
    assert found.feature_id == LogMel().feature_id and found.dim == 64
    assert found.made["sound"] == "logmel" and found.header["encoder"] == ""
    assert found.header["parents"] == {"faces": FacesStore(faces).fingerprint}
    assert found.trained_on == {} and found.header["synthetic"] is True
    assert "with sound" in (cache / "report.html").read_text()


def test_notes(videos, faces, tmp_path, capsys):
    some = tmp_path / "videos"
    shutil.copytree(videos, some)
    (some / "late.mkv").unlink()
    main(Extract(audio="LogMel", source=(some,), faces=faces, out=tmp_path / "cache"))
    said = capsys.readouterr().out
    assert "note: late is not in --source" in said and "note: silent has no sound" in said
    assert not FeatureCache(tmp_path / "cache").read("late").valid.any()


def test_resuming(cache, videos, faces, tmp_path, monkeypatch, capsys):
    from features import extract_sound

    config = Extract(audio="logmel", source=(videos,), faces=faces, out=tmp_path / "cache")
    write, written = extract_sound.write_features, []

    def die(*arguments, **named):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(arguments)
        write(*arguments, **named)

    monkeypatch.setattr(extract_sound, "write_features", die)
    with pytest.raises(KeyboardInterrupt):
        main(config)
    monkeypatch.undo()
    assert main(config) == {"extracted": 3, "frames": 120, "up_to_date": 2}
    assert content(config.out) == content(cache)
    assert main(config)["extracted"] == 0
    assert "is up to date" in capsys.readouterr().out
    (config.out / "late.safetensors").write_bytes(b"damaged")
    assert main(config)["extracted"] == 1
    assert content(config.out) == content(cache)


def test_another_sound_track_is_heard_anew(videos, faces, tmp_path, capsys):
    shutil.copytree(videos, tmp_path / "videos")
    config = Extract(audio="logmel", source=(tmp_path / "videos",), faces=faces, out=tmp_path / "cache")
    main(config)
    write_talkie(tmp_path / "videos" / "steady.mp4", range(0, 2000, 40), [clicks_at([1.0], 44_100, 2.0)], codec="aac")
    assert main(config)["extracted"] == 1
    assert "steady is made from other faces" in capsys.readouterr().out
    found = FeatureCache(config.out).read("steady")
    assert loudest(found.features, found.valid, found.time_s, 1.0) == pytest.approx(1.0, abs=0.021)


def test_refusals(videos, faces, tmp_path):
    config = {"faces": faces, "out": tmp_path / "cache"}
    for wrong, message in [
        ({}, "pass either --encoder ENC .faces. or --audio"),
        ({"audio": "logmel", "encoder": "x"}, "pass either --encoder"),
        ({"audio": "logmel", "view": ("eyes",), "source": (videos,)}, "--view is for --encoder"),
        ({"encoder": "x", "source": (videos,)}, "--source is for --audio"),
        ({"audio": "logmel"}, "--audio needs --source"),
        ({"audio": "logmel", "source": (tmp_path / "other",)}, "has no video of .*silent, steady"),
        ({"audio": str(tmp_path), "source": (videos,)}, "no speech model can be loaded from there"),
    ]:
        if "other" in str(wrong.get("source")):
            (tmp_path / "other").mkdir()
            shutil.copy(videos / "steady.mp4", tmp_path / "other" / "another.mp4")
        with pytest.raises(UserError, match=message):
            main(Extract(**config, **wrong))
    timeless = store_of(videos, tmp_path / "timeless", clock=False)
    with pytest.raises(UserError, match=r"the frames of late have no times.*run preprocessing/run.py on the videos"):
        main(Extract(audio="logmel", source=(videos,), faces=timeless, out=tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_a_cache_of_faces_is_not_overwritten(videos, faces, tmp_path):
    out = tmp_path / "cache"
    main(Extract(encoder=str(make_encoder(tmp_path / "encoder")), faces=faces, out=out, workers=0, precision="fp32"))
    sound = Extract(audio="logmel", source=(videos,), faces=faces, out=out)
    with pytest.raises(UserError, match="is a feature cache of faces: choose another --out"):
        main(sound)
    assert FeatureCache(out).made["view"] == "full"


def test_mel_bands_cover_the_spectrum():
    bands = mel_bands()
    assert bands.shape == (64, 257) and bands.max() <= 1
    hertz = np.arange(257) * RATE / 512
    inside = (hertz > 100) & (hertz < 7300)
    assert (bands.sum(axis=0)[inside] > 0.2).all()
    peaks = [hertz[band.argmax()] for band in bands if band.any()]
    assert peaks == sorted(peaks)


def test_logmel_measures_power():
    """A tone is in the band of its frequency, and ten times the amplitude are two powers of ten."""
    seconds = np.arange(RATE) / RATE
    rows = []
    for amplitude in (0.05, 0.5):
        wave = (amplitude * np.sin(2 * np.pi * 1000 * seconds)).astype(np.float32)
        ((times, tokens),) = [
            tuple(map(np.concatenate, zip(*LogMel().tokens([(3.0, part) for part in np.split(wave, 10)]), strict=True)))
        ]
        assert len(times) == 200 and times[0] == pytest.approx(3.0025) and np.allclose(np.diff(times), 0.005)
        rows.append(tokens[100])
    assert abs((mel_bands()[rows[1].argmax()]).argmax() * RATE / 512 - 1000) < 60
    assert (rows[1] - rows[0]).max() == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize(("kind", "dim"), [("wav2vec2", 16), ("hubert", 16), ("whisper", 8)])
def test_speech_models(kind, dim, videos, faces, tmp_path):
    folder = speech_model(tmp_path / kind, kind)
    main(Extract(audio=str(folder), source=(videos,), faces=faces, out=tmp_path / "cache"))
    found = FeatureCache(tmp_path / "cache")
    ear = SpeechModel(str(folder))
    assert (found.feature_id, found.dim) == (ear.feature_id, dim)
    assert found.made["sound"] == "model" and found.header["encoder"] == f"../{kind}"
    assert found.header["parents"]["encoder"] == ear.fingerprint
    late = found.read("late")  # the first token is in the frame after the one in which the sound starts
    assert np.array_equal(late.valid, (late.time_s > 0.61) & (late.time_s < 1.62))
    assert len(np.unique(found.read("steady").features, axis=0)) > 40  # each frame has its own
    assert SpeechModel(str(speech_model(tmp_path / "other", kind, seed=1))).feature_id != ear.feature_id
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert SpeechModel(str(moved)).feature_id == ear.feature_id


def test_a_speech_model_must_be_whole(tmp_path):
    """What a file lacks would be random numbers; only what training alone uses may be missing."""
    folder = speech_model(tmp_path / "model", "hubert")
    before = SpeechModel(str(folder)).feature_id
    tensors = load_file(folder / "model.safetensors")
    for name, message in (("masked_spec_embed", ""), ("feature_projection.projection.weight", "it lacks feature_proj")):
        save_file({key: value for key, value in tensors.items() if key != name}, folder / "model.safetensors")
        if not message:
            assert SpeechModel(str(folder)).feature_id == before
            continue
        with pytest.raises(UserError, match=f"no speech model can be loaded from there .{message}"):
            SpeechModel(str(folder))
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="no speech model can be loaded"):
        SpeechModel(str(folder))


def test_chunks_join_without_a_seam(tmp_path, monkeypatch):
    monkeypatch.setattr(speech, "CHUNK_S", 3)
    ear = SpeechModel(str(speech_model(tmp_path / "model", "wav2vec2")))
    wave = np.random.default_rng(0).normal(0, 0.1, RATE * 10 + 77).astype(np.float32)
    parts = list(ear.tokens([(5.0, part) for part in np.array_split(wave, 9)]))
    times = np.concatenate([part for part, _ in parts])
    assert len(parts) > 3 and np.allclose(np.diff(times), 0.02, atol=1e-9)
    assert times[0] == pytest.approx(5 + 200 / RATE) and times[-1] == pytest.approx(15, abs=0.03)
    with torch.inference_mode():
        alone = ear._model(torch.from_numpy(ear._prepare(wave[: 3 * RATE], sampling_rate=RATE).input_values[0])[None])
    count = len(parts[0][0])
    torch.testing.assert_close(torch.from_numpy(parts[0][1]), alone.last_hidden_state[0][:count])
    centres = [[part[0], part[-1]] for part, _ in parts]
    assert all(late[0] - early[1] == pytest.approx(0.02) for early, late in pairwise(centres))
    tiny = list(ear.tokens([(0.0, wave[:50])]))
    assert sum(len(part) for part, _ in tiny) == 1
