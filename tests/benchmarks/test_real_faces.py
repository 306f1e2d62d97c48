"""Stages 1 and 2 on a handful of drawn faces laid out as the real ones are."""

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.metrics import f1_score

from benchmarks import real_faces as real
from checkpoints.errors import UserError
from synthwild.face import draw_face
from synthwild.people import Action, Pose, random_identity

VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")


def face(seed: int, size: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    canvas = np.full((size, size, 3), 150, np.uint8)
    action = Action({"AU12": 1.0, "AU6": 1.0} if seed % 2 else {})
    draw_face(canvas, random_identity(rng), action, Pose(size / 2, size / 2, size / 4))
    return Image.fromarray(canvas[..., ::-1])


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return buffer.getvalue()


def write_votes(path, seeds):
    columns = {name: [0] * len(seeds) for name in VOTES}
    for place, seed in enumerate(seeds):
        columns["happiness" if seed % 2 else "neutral"][place] = 7
        columns["contempt"][place] = 3
    images = [{"bytes": png(face(seed, 48).convert("L")), "path": None} for seed in seeds]
    pq.write_table(pa.table({"name": [f"fer{seed:07}.png" for seed in seeds], "image": images, **columns}), path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("faces")
    for name in ("ferplus", "muxspace", "london"):
        (root / name).mkdir()
    write_votes(root / "ferplus" / "train.parquet", range(40))
    write_votes(root / "ferplus" / "validation.parquet", [3, *range(41, 48)])  # the first is a training picture
    rows = []
    for seed in range(50, 58):
        path = f"muxspace/person_{seed}.jpg"
        face(seed, 120).convert("L").save(root / path)
        label = "happiness" if seed % 2 else "neutral"
        rows.append({"path": path, "label": label, "split": "val" if seed > 53 else "train"})
    for seed in (60, 61):
        face(seed, 256).save(root / "london" / f"{seed}.jpg")
        rows.append({"path": f"london/{seed}.jpg", "label": "neutral", "split": "train"})
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "split"])
        writer.writeheader()
        writer.writerows(rows)
    return root


def test_real_faces_go_through_both_stages(data, tmp_path, capsys):
    pytest.importorskip("facenet_pytorch")
    config = real.Real(data=data, out=tmp_path / "real", workers=1, pretrain_steps=2, epochs=4.0)
    summary = real.main(config)
    assert summary == json.loads((tmp_path / "real" / "summary.json").read_text())
    for test in ("ferplus_validation", "muxspace_val"):
        for start in ("mae", "scratch"):
            scores = summary["scores"][test][start]
            assert scores["classes"] == ["Neutral", "Happiness"]
            counts = np.array(scores["confusion"])
            truth, answer = (np.repeat(index, counts.ravel()) for index in np.indices(counts.shape).reshape(2, -1))
            expected = f1_score(truth, answer, labels=[0, 4], average="macro", zero_division=0)
            assert scores["macro_f1"] == pytest.approx(expected)
            assert np.flatnonzero(counts.sum(axis=1)).tolist() == [0, 4] and counts.sum() == scores["frames"]
    assert summary["scores"]["ferplus_validation"]["mae"]["frames"] == 8
    assert summary["scores"]["muxspace_val"]["mae"]["frames"] == 4
    assert 1 <= summary["pictures_trained_on"]["ferplus_validation"] <= 8
    page = (tmp_path / "real" / "report.html").read_text()
    assert "HOG" in page and "Neutral, Happiness" in page
    assert "finetune from scratch" in summary["stages"]
    capsys.readouterr()
    assert real.main(config)["scores"] == summary["scores"]
    assert "is finished" in capsys.readouterr().out


def test_a_folder_without_the_data_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no ferplus"):
        real.main(real.Real(data=tmp_path, out=tmp_path / "real"))
    assert not (tmp_path / "real").exists()
