import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints.errors import UserError
from checkpoints.network import Encoder, EncoderConfig
from preprocessing.write_faces import finish_store, write_shard
from pretrain.probe import Probe, linear, nearest_neighbours

CONFIG = EncoderConfig("vit_tiny_patch16_224", 32, {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2})


def square(place, seed):
    """A bright square in one of four quarters: its position is its class, as positions matter in a face."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(60, 100, (32, 32, 3), np.uint8)
    top, left = 16 * (place // 2), 16 * (place % 2)
    pixels[top : top + 16, left : left + 16] += 120
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Faces and labels of twelve videos: nine to fit, three to score."""
    root = tmp_path_factory.mktemp("labelled")
    rows, lines = [], ["video,frame,expression,split"]
    for number in range(12):
        video = f"v{number}"
        for frame in range(1, 17):
            place = (number + frame) % 4
            rows.append(
                {
                    "video": video,
                    "subject": "",
                    "frame": frame,
                    "time_s": 0.0,
                    "image": square(place, 100 * number + frame),
                }
            )
            lines.append(f"{video},{frame},{place},{'validation' if number >= 9 else 'train'}")
    rows[5]["image"] = None
    write_shard(root / "faces", "a", rows)
    finish_store(root / "faces", made_by="test", config={}, image_size=32, problems=[])
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def test_places_tell_what_means_do_not(labelled):
    torch.manual_seed(0)
    probe = Probe(labelled / "faces", labelled / "labels.csv", 32)
    assert len(probe.rows) == 9 * 16 - 1 and len(probe.scored_rows) == 3 * 16
    scores = probe.score(Encoder(CONFIG))
    assert scores["probe_linear"] == pytest.approx(0.5)  # four of the eight expressions, all right
    assert 0 <= scores["probe_knn"] <= scores["probe_linear"]
    assert probe.score(Encoder(CONFIG)).keys() == {"probe_linear", "probe_knn"}


def test_no_recording_is_fitted_and_scored(labelled, tmp_path):
    text = (labelled / "labels.csv").read_text().replace("train", "test").replace("validation", "train")
    (tmp_path / "labels.csv").write_text(text)  # no validation split: videos of the other are held out
    probe = Probe(labelled / "faces", tmp_path / "labels.csv", 32)
    video = probe.store.video
    assert not set(video[probe.rows]) & set(video[probe.scored_rows])


def test_classes_of_other_names(labelled, tmp_path):
    text = (labelled / "labels.csv").read_text().replace("expression", "label")
    (tmp_path / "labels.csv").write_text(re.sub(r"(\nv\d+,\d+),0,", r"\1,calm,", text))
    (tmp_path / "map.json").write_text('{"calm": "Neutral", "1": "Anger", "2.0": "Disgust", "3": null}')
    probe = Probe(labelled / "faces", tmp_path / "labels.csv", 32, tmp_path / "map.json")
    assert set(probe.targets.tolist()) == {0, 1, 2}
    assert probe.notes == [
        "class '1' is Anger",
        "class '2' is Disgust",
        "class '3' is left out",
        "class 'calm' is Neutral",
    ]


def test_classifiers_on_what_they_should_tell_apart():
    rng = np.random.default_rng(0)
    targets = np.repeat([1, 4, 6], [200, 20, 20])  # imbalanced: the rare ones must not be lost
    centres = rng.normal(size=(8, 16)) * 3
    draw = lambda wanted: torch.from_numpy(centres[wanted] + rng.normal(size=(len(wanted), 16))).float()  # noqa: E731
    order = rng.permutation(len(targets))
    wanted = np.repeat([1, 4, 6], 10)
    for classify in (linear, nearest_neighbours):
        guess = classify(draw(targets[order]), targets[order], draw(wanted))
        assert (guess == wanted).mean() > 0.9


def test_too_little_to_probe(labelled, tmp_path):
    (tmp_path / "labels.csv").write_text("video,frame,expression,split\nother,1,0,train\n")
    with pytest.raises(UserError, match="share 0 frames to fit"):
        Probe(labelled / "faces", tmp_path / "labels.csv", 32)
