"""The release's form with sound: from videos and crops to four validated challenge files by heads that see and hear."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from features.cache import FeatureCache
from features.run import Extract
from features.run import main as extract
from preprocessing.affwild2 import split_id
from preprocessing.run import Config
from preprocessing.run import run as preprocess
from temporal import run
from temporal.heads import load_head
from temporal.recipes import recipe
from temporal.submission import check_submission, write_submission
from tests.finetune.corpus import make_encoder
from tests.preprocessing.movies import write_talkie
from tests.temporal.conftest import TINY
from tests.temporal.corpus import TEST, TRAIN, VALIDATION, make_corpus

SILENT, LATE = "test2", "val1"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Labels and example files with videos at 25 frames per second and crops of noise; one is silent, one late."""
    root = make_corpus(tmp_path_factory.mktemp("corpus")) / "release"
    (root / "videos").mkdir()
    rng = np.random.default_rng(0)
    lengths: dict[str, int] = {}
    for id, length in (TRAIN | VALIDATION | TEST).items():
        video, _ = split_id(id)
        lengths[video] = max(lengths.get(video, 0), length)
        crops = root / "cropped_aligned" / id
        crops.mkdir(parents=True)
        for frame in range(1, length + 1):
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(crops / f"{frame:05d}.jpg")
    for video, length in lengths.items():
        waves = [] if video == SILENT else [rng.normal(0, 0.1, length * 640).clip(-1, 1)]
        first = 0.5 if video == LATE else 0.0
        write_talkie(root / "videos" / f"{video}.mkv", range(0, length * 40, 40), waves, rate=16_000, first_s=first)
    return root


def test_from_videos_with_sound_to_four_challenge_files(release, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the paths of a user: relative
    preprocess(Config(source=[str(release)], out=tmp_path / "faces", crops=True, framing="unknown", workers=1))
    make_encoder(tmp_path / "encoder")
    extract(Extract(encoder="encoder", faces=tmp_path / "faces", out=tmp_path / "seen", workers=0))
    extract(Extract(audio="logmel", source=(release,), faces=tmp_path / "faces", out=tmp_path / "heard"))
    heard = FeatureCache(tmp_path / "heard")
    assert heard.ids == sorted(TRAIN | VALIDATION | TEST)
    assert heard.read("test1").valid.all() and not heard.read("test2_left").valid.any()
    assert np.array_equal(np.flatnonzero(~heard.read(LATE).valid), np.arange(12 if heard.read(LATE).valid[12] else 13))
    caches = (tmp_path / "seen", tmp_path / "heard")
    quick = TINY | {"layers": 1, "epochs": 2, "evaluations": 1, "fusion_width": 16, "precision": "fp32"}
    config = replace(recipe("ours-av", "joint"), features=caches, labels=release, out=tmp_path / "joint", **quick)
    run.main(config)
    assert [item.sound for item in load_head(config.out).inputs] == ["", "logmel"]
    for form in ("va", "expr", "au", "mtl"):
        example = release / "test_set_examples" / f"{form}.txt"
        write_submission(tmp_path / f"{form}.txt", [config.out], caches, example)
        assert check_submission(tmp_path / f"{form}.txt", example)["frames"] == (3 if form == "mtl" else 113)
