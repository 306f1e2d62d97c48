import json
import shutil

import numpy as np
import pandas as pd
import pytest

from checkpoints.artifact import write_sealed
from checkpoints.errors import UserError
from temporal import evaluate, run
from temporal.heads import load_head
from temporal.scoring import Scored, describe, score_sequences
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
        evaluate.main(evaluate.Evaluate(task="expr", labels=tmp_path / "none", predictions=tmp_path / "ok.txt"))


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
    two = {"2": track(values), "": track(1 - values)}
    write_predictions(tmp_path / "again" / "v.csv", two)
    pd.read_csv(tmp_path / "again" / "v.csv").to_csv(tmp_path / "again" / "v.csv", index=False)  # writes 2.0
    write_labels(tmp_path / "l2", "v_2", "au", labels)
    config = evaluate.Evaluate(task="au", predictions=tmp_path / "again", labels=tmp_path / "l2")
    assert list(evaluate.main(config)["f1"].values()) == pytest.approx(present.astype(float).tolist())
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "v.csv").write_text("frame,valence,arousal,p_AU1\n1,0,0,0.5\n")
    with pytest.raises(UserError, match=r"lack columns of au: all of p_AU1 to p_AU26.*withhold"):
        evaluate.main(evaluate.Evaluate(task="au", predictions=tmp_path / "some", labels=tmp_path / "l2"))
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


def shows(id, label, predicted, length=10):
    labels = np.full((length, 1), label)
    return Scored(id, np.arange(1, length + 1), np.full_like(labels, predicted), labels, labels >= 0)


def test_a_perfect_prediction_has_no_interval(capsys):
    """Draws of videos that all score the same cannot tell how far others would differ; nor can a single video."""
    every = [shows(f"v{n}", n % 8, n % 8) for n in range(9)]
    for items in (every, [shows("a", 3, 2), shows("a_left", 2, 2)]):
        result = score_sequences(TASKS["expr"], items)
        assert result["ci_low"] is None and result["ci_high"] is None
        assert "none: all draws score the same" in describe({"expr": result})
    assert score_sequences(TASKS["expr"], every)["score"] == 1
    rng = np.random.default_rng(0)
    labels = [rng.uniform(-1, 1, (30, 2)) for _ in range(5)]
    items = [Scored(f"v{n}", np.arange(30), x, x, np.ones_like(x, bool)) for n, x in enumerate(labels)]
    assert score_sequences(TASKS["va"], items)["ci_low"] is None


@pytest.mark.parametrize(("fear", "low", "high"), [(3, 0.87, 1.0), (0, 0.75, 0.876)])
def test_a_draw_says_nothing_about_a_class_that_it_does_not_show(fear, low, high):
    """One of six videos shows fear, so a third of the draws does not: neither an F1 of 0 nor one class less."""
    items = [shows(f"v{n}", n % 3, n % 3, 100) for n in range(5)] + [shows("v6", 3, fear, 100)]
    items[0].decoded[:20] = 1  # not perfect, so that there is an interval
    items = [*items, *(shows(f"w{n}", 4 + n % 4, 4 + n % 4) for n in range(20))]
    result = score_sequences(TASKS["expr"], items)
    assert low < result["ci_low"] < result["score"] < result["ci_high"] <= high


def test_parts_of_a_recording_are_drawn_together():
    items = [shows("video45_1", 1, 1), shows("video45_2_left", 2, 1), shows("video46", 1, 1)]
    assert score_sequences(TASKS["expr"], items)["videos"] == 2


def mtl_rows(video, wrong=0):
    rows = [f"{video}/{frame:05d}.jpg,0.{frame},-0.{frame},{frame % 8}" for frame in range(1, 9)]
    return [row + ",1" * (12 - wrong) + ",0" * wrong for row in rows]


def mtl_release(root):
    """A release with an MTL set, and with label files of its tasks for other videos."""
    for task in TASKS.values():
        labels = make_labels(task.name, 20, np.random.default_rng(0))
        write_labels(root / "6th ABAW Annotations" / task.folders[0] / "Validation_Set", "other", task.name, labels)
    folder = root / "6th ABAW Annotations" / "MTL_Challenge"
    folder.mkdir()
    challenge(folder / "train_set.txt", "mtl", mtl_rows("taught"))
    challenge(folder / "validation_set.txt", "mtl", mtl_rows("v"))
    return folder


def test_mtl_is_the_sum_over_the_mtl_set(tmp_path, capsys):
    """Of a release, of the set's folder, or of its file, whatever the files are called; and it is printed."""
    folder = mtl_release(tmp_path / "release")
    (tmp_path / "labels.csv").write_text((folder / "validation_set.txt").read_text())
    for place, name in (
        (tmp_path / "release", "p.txt"),
        (folder, "p.csv"),
        (folder / "validation_set.txt", "p"),
        (tmp_path / "labels.csv", "p.TXT"),
    ):
        file = challenge(tmp_path / name, "mtl", mtl_rows("v", wrong=6))
        page = tmp_path / "page.html"
        result = evaluate.main(evaluate.Evaluate(task="mtl", predictions=file, labels=place, report=page))
        assert result["score"] == pytest.approx(2.5) and result["va"]["score"] == pytest.approx(1)
        assert "P_MTL 2.5000, the sum of the three scores" in capsys.readouterr().out
        assert "P_MTL, their sum" in page.read_text()
    (folder / "validation_set.txt").unlink()
    options = {"task": "mtl", "predictions": file}
    with pytest.raises(
        UserError, match="holds no validation set of the MTL challenge"
    ):  # not the tasks' own sets, of other videos
        evaluate.main(evaluate.Evaluate(**options, labels=tmp_path / "release"))
    with pytest.raises(UserError, match="holds no test set of the MTL challenge"):
        evaluate.main(evaluate.Evaluate(**options, labels=folder, split="test"))


def test_one_task_of_an_mtl_folder(tmp_path):
    folder = mtl_release(tmp_path / "release")
    file = challenge(tmp_path / "f.csv", "expr", [f"v/{frame:05d}.jpg,{frame % 8}" for frame in range(1, 9)])
    assert evaluate.main(evaluate.Evaluate(task="expr", predictions=file, labels=folder))["score"] == 1


def test_rows_of_several_splits_are_never_scored_together(tmp_path):
    table = "video,frame,expression,split\nt,1,0,train\nv,1,1,val\nv,2,1,val\nx,1,2,test\n"
    (tmp_path / "labels.csv").write_text(table)
    rows = ["t/00001.jpg,0", "v/00001.jpg,1", "v/00002.jpg,0", "x/00001.jpg,2"]
    options = {"task": "expr", "predictions": challenge(tmp_path / "f.txt", "expr", rows)}
    result = evaluate.main(evaluate.Evaluate(**options, labels=tmp_path / "labels.csv"))
    assert result["frames"] == 2 and result["f1"]["Anger"] == pytest.approx(2 / 3)
    test = evaluate.main(evaluate.Evaluate(**options, labels=tmp_path / "labels.csv", split="test"))
    assert test["frames"] == 1 and test["f1"]["Disgust"] == 1
    (tmp_path / "none.csv").write_text(table.replace("val", "test"))
    with pytest.raises(UserError, match=r"none\.csv has splits, but no expr labels of a validation split"):
        evaluate.main(evaluate.Evaluate(**options, labels=tmp_path / "none.csv"))
    lines = [line.rpartition(",")[0] for line in table.splitlines()]
    (tmp_path / "whole.csv").write_text("\n".join(lines) + "\n")
    assert evaluate.main(evaluate.Evaluate(**options, labels=tmp_path / "whole.csv"))["frames"] == 4


def test_labels_with_names_of_their_own_and_no_frames(tmp_path, capsys):
    rows = [f"{id}/{frame:05d}.jpg,{label}" for id, label in (("v", 4), ("w", 5)) for frame in (1, 2, 3)]
    options = {"task": "expr", "predictions": challenge(tmp_path / "f.txt", "expr", rows)}
    (tmp_path / "labels.csv").write_text("video,label\nv,glad\nw,sad\n")
    (tmp_path / "map.json").write_text('{"glad": "Happiness"}')
    options |= {"labels": tmp_path / "labels.csv", "class_map": tmp_path / "map.json"}
    assert evaluate.main(evaluate.Evaluate(**options))["frames"] == 6
    assert "class 'glad' is Happiness" in capsys.readouterr().out
    (tmp_path / "labels.csv").write_text("video,happiness,unknown\nv,1,9\nw,9,1\n")
    assert evaluate.main(evaluate.Evaluate(**options))["frames"] == 3
    assert "note: 1 rows have no vote" in capsys.readouterr().out


def test_without_heads_nothing_is_known_and_that_is_said(runs, corpus, tmp_path, capsys):
    options = {"task": "va", "predictions": runs / "va" / "validation", "labels": corpus / "release"}
    files = {"json": tmp_path / "s.json", "report": tmp_path / "r.html"}
    evaluate.main(evaluate.Evaluate(**options, **files))
    said = "Without --heads nobody knows which of these videos taught or chose what made the predictions."
    assert said in capsys.readouterr().out and said in files["report"].read_text()
    assert json.loads(files["json"].read_text())["notes"] == [said]
    assert evaluate.main(evaluate.Evaluate(**options, heads=(runs / "va",), rule_clean=True))["notes"] == []
    for flag in ("rule_clean", "allow_leak"):
        with pytest.raises(UserError, match="--rule-clean and --allow-leak need --heads"):
            evaluate.main(evaluate.Evaluate(**options, **{flag: True}))


def test_what_taught_or_chose_is_left_out(runs, corpus, tmp_path):
    """Whichever of head and encoder it taught or chose."""
    head = tmp_path / "run" / "head"
    shutil.copytree(runs / "va" / "head", head)
    header = json.loads((head / "config.json").read_text())
    options = {"task": "va", "predictions": runs / "va" / "validation", "labels": corpus / "release"}
    options |= {"heads": (tmp_path / "run",)}
    for change in (
        {"trained_on": ["val1"]},
        {"encoder_trained_on": {"va": ["val1"]}},
        {"encoder_chosen_on": {"expr": ["val1"]}},
    ):
        write_sealed(head / "config.json", header | change)
        assert evaluate.main(evaluate.Evaluate(**options))["videos"] == 2
        with pytest.raises(UserError, match="--rule-clean"):
            evaluate.main(evaluate.Evaluate(**options, rule_clean=True))
        assert evaluate.main(evaluate.Evaluate(**options, allow_leak=True))["videos"] == 3
    write_sealed(head / "config.json", {k: v for k, v in header.items() if k != "encoder_chosen_on"})
    with pytest.raises(UserError, match="--rule-clean: the heads do not say whose labels chose"):
        evaluate.main(evaluate.Evaluate(**options, rule_clean=True))


def test_a_run_scores_what_rule_clean_accepts(settings, corpus, tmp_path):
    """A part of a recording in the training split and another in the validation split: one rule for both."""
    shutil.copytree(corpus / "release", tmp_path / "release")
    (folder,) = (tmp_path / "release").glob(f"*/{TASKS['va'].folders[0]}")
    (folder / "Train_Set" / "video10_2.txt").rename(folder / "Validation_Set" / "video10_2.txt")
    summary = run.main(settings("va", tmp_path / "run", labels=tmp_path / "release", epochs=1))
    options = {"predictions": tmp_path / "run" / "validation", "labels": tmp_path / "release"}
    result = evaluate.main(evaluate.Evaluate(task="va", **options, heads=(tmp_path / "run",), rule_clean=True))
    assert result["videos"] == summary["validation"]["va"]["videos"] == 4
    assert "video10_1" not in load_head(tmp_path / "run").trained_on
