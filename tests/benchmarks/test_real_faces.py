"""Stages 1 and 2 on a handful of drawn faces laid out as the real ones are."""

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score

from benchmarks import real_faces as real
from checkpoints.errors import UserError
from tests.drawn_data import write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("faces")
    write_data(root)
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
