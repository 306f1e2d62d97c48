import json

import numpy as np
import pytest

from checkpoints.errors import UserError
from temporal import evaluate
from temporal.scoring import Scored, score_sequences
from tests.temporal.corpus import make_labels, write_labels
from wildaffect.tasks import TASKS
from wildaffect.tasks.challenge import header
from wildaffect.tasks.predictions import PredictionTrack, write_predictions


def challenge(path, form, rows):
    path.write_text(header(form) + "\n" + "".join(f"{row}\n" for row in rows))
    return path


def test_every_annotated_frame_counts_once_and_markers_do_not(tmp_path):
    rng = np.random.default_rng(0)
    labels = {"a": make_labels("va", 30, rng), "b_left": make_labels("va", 25, rng)}
    rows, predicted, true = [], [], []
    for id, track in labels.items():
        write_labels(tmp_path / "labels", id, "va", track)
        values = np.clip(track + rng.normal(0, 0.2, track.shape), -1, 1).round(6)
        values[np.abs(values) > 1] = 0
        rows += [f"{id}/{frame + 1:05d}.jpg,{v[0]},{v[1]}" for frame, v in enumerate(values)]
        predicted.append(values)
        true.append(track.round(3))
    predicted, true = np.concatenate(predicted), np.concatenate(true)
    file = challenge(tmp_path / "f.txt", "va", rows[::-1])  # in any order
    config = evaluate.Evaluate(task="va", predictions=file, labels=tmp_path / "labels", json=tmp_path / "s.json")
    result = evaluate.main(config)

    def ccc(i):
        seen = true[:, i] != -5
        x, y = predicted[seen, i], true[seen, i]
        return 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)

    assert result["ccc_valence"] == pytest.approx(ccc(0), abs=1e-6)
    assert result["score"] == pytest.approx((ccc(0) + ccc(1)) / 2, abs=1e-6)
    assert json.loads((tmp_path / "s.json").read_text())["score"] == result["score"] and not result["synthetic"]


def test_missing_and_double_predictions_are_named(tmp_path):
    write_labels(tmp_path / "l", "a", "expr", np.array([[1], [-1], [2]]))
    config = {"task": "expr", "labels": tmp_path / "l"}
    rows = ["a/00001.jpg,1", "a/00003.jpg,2"]
    result = evaluate.main(evaluate.Evaluate(**config, predictions=challenge(tmp_path / "ok.txt", "expr", rows)))
    assert result["score"] == 2 / 8 and result["frames"] == 2
    with pytest.raises(UserError, match="no expr prediction for frame 3 of a"):
        evaluate.main(evaluate.Evaluate(**config, predictions=challenge(tmp_path / "f.txt", "expr", rows[:1])))
    with pytest.raises(UserError, match=r"line 4: a/00003\.jpg is listed twice"):
        evaluate.main(evaluate.Evaluate(**config, predictions=challenge(tmp_path / "f.txt", "expr", [*rows, rows[1]])))
    with pytest.raises(UserError, match="no expr prediction for frame 1 of a"):
        evaluate.main(evaluate.Evaluate(**config, predictions=challenge(tmp_path / "f.txt", "expr", ["b/00001.jpg,0"])))
    with pytest.raises(UserError, match="expected the header"):
        evaluate.main(evaluate.Evaluate(**config, predictions=challenge(tmp_path / "f.txt", "va", [])))
    with pytest.raises(UserError, match="does not exist"):
        evaluate.main(evaluate.Evaluate(task="expr", labels=tmp_path / "none", predictions=tmp_path / "f.txt"))


def test_tables_of_ours(tmp_path):
    rng = np.random.default_rng(0)
    labels = make_labels("au", 20, rng)
    write_labels(tmp_path / "l", "v_left", "au", labels)
    values = np.where(labels > 0.5, 0.8, 0.2) + rng.normal(0, 0.05, labels.shape)
    frames = np.arange(1, 21)

    def track(values):
        return PredictionTrack(frames, frames / 25, np.ones(20, bool), {"au": values})

    for suffix in ("parquet", "csv"):
        write_predictions(tmp_path / suffix / f"v.{suffix}", {"left": track(values), "": track(1 - values)})
        config = evaluate.Evaluate(task="au", predictions=tmp_path / suffix, labels=tmp_path / "l")
        present = (labels == 1).any(axis=0)  # F1 is 0 for an AU that never occurs
        assert list(evaluate.main(config)["f1"].values()) == pytest.approx(present.astype(float).tolist())
    values[4] = np.nan
    write_predictions(tmp_path / "gap" / "v.parquet", {"left": track(values)})
    with pytest.raises(UserError, match="no au prediction for frame 5 of v_left"):
        evaluate.main(evaluate.Evaluate(task="au", predictions=tmp_path / "gap", labels=tmp_path / "l"))


def test_interval_is_over_videos_not_frames():
    """Frames of a video are alike: repeating each frame tenfold must not make the interval narrower."""
    rng = np.random.default_rng(0)
    task = TASKS["expr"]
    items = []
    for number in range(20):
        labels = rng.integers(0, 8, (10, 1))
        right = rng.random() < 0.5  # a whole video right or wrong
        items.append(Scored(f"v{number}", np.arange(10), labels if right else (labels + 1) % 8, labels, labels >= 0))
    few = score_sequences(task, items)
    many = score_sequences(
        task,
        [Scored(i.id, np.arange(100), *(np.repeat(x, 10, 0) for x in (i.decoded, i.labels, i.mask))) for i in items],
    )
    assert many["ci_low"] == pytest.approx(few["ci_low"]) and few["ci_high"] - few["ci_low"] > 0.3
    one_group = [
        Scored("v_left" if n % 2 else "v", *(getattr(i, f) for f in ("frames", "decoded", "labels", "mask")))
        for n, i in enumerate(items)
    ]
    assert score_sequences(task, one_group)["videos"] == 1


def test_mtl_is_the_sum(tmp_path):
    lines = [f"v/{frame:05d}.jpg,0.{frame},-0.{frame},{frame % 8}" + ",1" * 12 for frame in range(1, 9)]
    challenge(tmp_path / "f.txt", "mtl", lines)
    challenge(tmp_path / "validation_set.txt", "mtl", lines)
    result = evaluate.main(
        evaluate.Evaluate(task="mtl", predictions=tmp_path / "f.txt", labels=tmp_path / "validation_set.txt")
    )
    assert result["score"] == pytest.approx(3) and result["va"]["score"] == pytest.approx(1)
