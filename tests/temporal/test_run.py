import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints.errors import UserError
from features.cache import FeatureCache, finish_cache
from temporal import run, train
from temporal.heads import load_head, load_heads
from tests import processes
from tests.temporal.corpus import TRAIN, VALIDATION, make_labels, write_cache, write_labels
from wildaffect.tasks import TASKS
from wildaffect.tasks.labels import read_annotations
from wildaffect.tasks.predictions import read_predictions
from wildaffect.training.rundir import read_metrics

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("task", ["va", "expr", "au"])
def test_a_run_learns_and_leaves_its_files(runs, task):
    summary = json.loads((runs / task / "finished.json").read_text())
    scores = summary["validation"][task]
    assert scores["score"] > scores["chance"] + 0.1
    assert {"raw", "ci_low", "ci_high", "frames", "videos"} <= set(scores)
    assert (runs / task / "report.html").read_text().startswith("<!DOCTYPE html>")
    config = json.loads((runs / task / "head" / "config.json").read_text())
    assert config["task"] == task and config["inputs"][0]["feature_id"] == "id of cache"
    assert not set(config["trained_on"]) & set(VALIDATION) and set(config["trained_on"]) == set(TRAIN)
    assert str(runs) not in json.dumps(config)
    tables = read_predictions(runs / task / "validation")
    assert set(tables) == set(VALIDATION)
    assert all(len(tables[id].frames) == length for id, length in VALIDATION.items())


def test_joint_predicts_all_tasks(runs):
    summary = json.loads((runs / "joint" / "finished.json").read_text())["validation"]
    assert summary["score"] == pytest.approx(sum(summary[name]["score"] for name in TASKS))
    assert summary["score"] > sum(summary[name]["chance"] for name in TASKS) + 0.1
    assert load_head(runs / "joint").name == "joint"


def test_a_finished_run_is_not_trained_again(runs, settings, capsys):
    before = (runs / "va" / "head" / "model.safetensors").stat().st_mtime_ns
    summary = run.main(settings("va", runs / "va"))
    assert "is finished" in capsys.readouterr().out and summary["validation"]
    assert (runs / "va" / "head" / "model.safetensors").stat().st_mtime_ns == before


def test_another_setting_in_the_same_folder_is_refused(runs, settings):
    with pytest.raises(UserError, match="setting lr"):
        run.main(settings("va", runs / "va", lr=0.5))


def test_killed_and_resumed_gives_the_same_head_bit_for_bit(settings, tmp_path, monkeypatch):
    """Including dropout, masking, jitter, moving average and best state."""
    options = {
        "epochs": 12,
        "save_every": 3,
        "evaluations": 5,
        "mask_form": "spans",
        "dropout": 0.3,
        "cache_dropout": 0.5,
    }
    corpus_view = settings("va", tmp_path).features[0].parent / "view"
    options["features"] = (settings("va", tmp_path).features[0], corpus_view)
    run.main(settings("va", tmp_path / "whole", **options))

    whole = train.batches

    def dies(windows, plan, first, config):
        for number, batch in enumerate(whole(windows, plan, first, config)):
            if first + number == 5:
                raise RuntimeError("killed")
            yield batch

    monkeypatch.setattr(train, "batches", dies)
    with pytest.raises(RuntimeError, match="killed"):
        run.main(settings("va", tmp_path / "killed", **options))
    assert not (tmp_path / "killed" / "head").exists()
    monkeypatch.setattr(train, "batches", whole)
    run.main(settings("va", tmp_path / "killed", **options))
    one, two = (load_file(tmp_path / name / "head" / "model.safetensors") for name in ("whole", "killed"))
    assert all(one[name].equal(two[name]) for name in one)
    records = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "killed")]
    held_out = [[r for r in map(json.loads, lines) if "held_out" in r] for lines in records]
    assert held_out[0] == held_out[1]


def test_early_stopping_keeps_the_best_state_and_survives_a_restart(settings, tmp_path):
    options = {"patience": 2, "evaluations": 20, "lr": 0.3, "epochs": 40}  # far too high a rate: it gets worse soon
    summary = run.main(settings("va", tmp_path / "a", **options))
    member = summary["members"][0]
    lines = map(json.loads, (tmp_path / "a" / "metrics.jsonl").read_text().splitlines())
    held = {record["step"]: record["held_out"] for record in lines if "held_out" in record}
    assert member["best_step"] == max(held, key=lambda step: (held[step], -step))
    assert member["steps"] == max(held) < 40 * len(TRAIN)
    (tmp_path / "a" / "finished.json").unlink()
    assert run.main(settings("va", tmp_path / "a", **options)) == summary


def test_folds_of_a_table_with_names_of_its_own(settings, tmp_path, capsys):
    """The class map and the caches' spans reach every reading of the labels, also that of the folds."""
    rows = [f"{id},{'bored' if number % 2 else 'happy'}" for number, id in enumerate(TRAIN)]
    (tmp_path / "labels.csv").write_text("\n".join(["video,label", *rows]) + "\n")
    (tmp_path / "map.json").write_text('{"bored": "Sadness"}')
    labels = {"labels": tmp_path / "labels.csv", "class_map": tmp_path / "map.json"}
    run.main(settings("expr", tmp_path / "f", folds=2, epochs=1, **labels))
    assert "class 'bored' is Sadness" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "f").iterdir() if path.is_dir()} >= {"fold0", "fold1"}


def test_folds_and_seeds_make_members_that_are_averaged(settings, tmp_path):
    config = settings("expr", tmp_path / "f", folds=2, seeds=2, epochs=4)
    summary = run.main(config)
    labels = read_annotations(config.labels, TASKS["expr"], "Train_Set")
    assert [m["name"] for m in summary["members"]] == ["fold0-seed0", "fold0-seed1", "fold1-seed0", "fold1-seed1"]
    heads = load_heads([tmp_path / "f"])
    assert len(heads) == 4
    annotated = sum(track.mask.any(axis=1).sum() for track in labels.values())
    assert summary["held_out"]["expr"]["frames"] == annotated  # seeds are averaged: each frame once
    with pytest.raises(UserError, match="holds 4 heads"):
        load_head(tmp_path / "f")


@pytest.mark.usefixtures("notebook_tracker")
def test_a_tracker_hears_every_member(settings, tmp_path):
    run.main(settings("va", tmp_path, seeds=2, epochs=2, tracker="tensorboard"))
    for seed in (0, 1):
        member = tmp_path / f"seed{seed}"
        told, *heard = [json.loads(line) for line in (member / "notebook.jsonl").open()]
        assert told[1]["seed"] == seed and told[1]["recipe"] == "demo"
        records = read_metrics(member)
        assert len(records) > 2 and [{"step": step, **values} for step, values in heard] == records
    assert "tracker" not in json.loads((tmp_path / "config.json").read_text())["config"]


def test_two_caches_side_by_side(settings, corpus, tmp_path):
    out = tmp_path / "two"
    run.main(
        settings("va", out, features=(corpus / "cache", corpus / "view"), epochs=2, fusion="attention", fusion_width=8)
    )
    assert [item.dim for item in load_head(out).inputs] == [12, 5]


def test_the_scores_of_a_run_are_those_of_its_tables(runs, corpus):
    """Scoring the validation videos' prediction tables with evaluate.py gives the run's own numbers."""
    from temporal import evaluate

    for task in TASKS:
        options = {"task": task, "predictions": runs / task / "validation", "labels": corpus / "release"}
        result = evaluate.main(evaluate.Evaluate(**options, heads=(runs / task,)))
        own = json.loads((runs / task / "finished.json").read_text())["validation"][task]
        assert result["score"] == pytest.approx(own["score"], abs=1e-6) and result["frames"] == own["frames"]


def test_validation_may_choose_instead_of_being_scored(settings, corpus, tmp_path):
    summary = run.main(settings("au", tmp_path / "v", tune_on="validation", epochs=5))
    assert summary["validation"] is None and summary["held_out"]["au"]["videos"] == len(VALIDATION)
    head = load_head(tmp_path / "v")
    assert set(head.trained_on) == set(TRAIN) | set(VALIDATION)  # what chose is no longer fit to be reported
    with pytest.raises(UserError, match="do not combine it with --tune-on"):
        run.main(settings("au", tmp_path / "w", tune_on="validation", folds=2))
    only_train = corpus / "release" / "6th ABAW Annotations" / TASKS["au"].folders[0] / "Train_Set"
    with pytest.raises(UserError, match="has no au validation split"):
        run.main(settings("au", tmp_path / "w", tune_on="validation", labels=only_train))


# Faults


@pytest.mark.parametrize("task", ["va", "expr", "au"])
def test_labels_that_cannot_teach_are_refused(settings, tmp_path, task):
    def corpus(change):
        root = tmp_path / change.__name__
        for split, sizes in (("Train_Set", TRAIN), ("Validation_Set", VALIDATION)):
            for id, length in sizes.items():
                labels = change(make_labels(task, length, np.random.default_rng(0)))
                write_labels(root / TASKS[task].folders[0] / split, id, task, labels)
        return root

    def nothing(labels):
        return np.full_like(labels, TASKS[task].marker)

    def one_value(labels):
        return np.ones_like(labels)

    with pytest.raises(UserError, match=f"annotated {task} frame"):
        run.main(settings(task, tmp_path / "out", labels=corpus(nothing)))
    with pytest.raises(
        UserError, match=r"have the same expr label \(Anger\)" if task == "expr" else "the same .* label"
    ):
        run.main(settings(task, tmp_path / "out2", labels=corpus(one_value)))


def test_sequences_without_any_face_stop_neither_training_nor_scoring(settings, corpus, tmp_path, capsys):
    """One training sequence was never seen, one is missing from the cache, and so is one that is only scored."""
    source = FeatureCache(corpus / "cache")
    ids = sorted(TRAIN)
    features = {id: source.read(id).features for id in source.ids if id not in (ids[0], "val3")}
    cache = write_cache(tmp_path / "cache", features)
    tensors = load_file(cache / f"{ids[1]}.safetensors")
    tensors["valid"][:], tensors["features"][:] = False, 0
    save_file(tensors, cache / f"{ids[1]}.safetensors")
    finish_cache(cache, made_by="test", config={}, parents={}, feature_id="id", dim=12)
    run.main(settings("va", tmp_path / "out", features=(cache,)))
    said = capsys.readouterr().out
    assert "lacks 2 of 15 sequences" in said
    assert "2 of" in said and "training sequences have no face in any frame" in said
    head = load_head(tmp_path / "out")
    assert not {ids[0], ids[1]} & set(head.trained_on)
    assert "val3" in head.record["scored_on"]


def test_inputs_that_do_not_fit_are_refused(settings, corpus, tmp_path):
    source = FeatureCache(corpus / "cache")
    features = {id: source.read(id).features for id in source.ids}
    with pytest.raises(UserError, match="does not exist"):
        run.main(settings("va", tmp_path / "o", features=(tmp_path / "none",)))
    with pytest.raises(UserError, match="no feature cache given"):
        run.main(settings("va", tmp_path / "o", features=()))
    with pytest.raises(UserError, match="holds no va labels of a training split"):
        run.main(settings("va", tmp_path / "o", labels=corpus / "release" / "test_set_examples"))
    lacking = write_cache(tmp_path / "lacking", {id: x for id, x in features.items() if id in ("val1", "val2")})
    with pytest.raises(UserError, match=r"lacks \d+ of 15 sequences .*extract their features"):
        run.main(settings("va", tmp_path / "o", features=(lacking,)))
    longer = write_cache(tmp_path / "longer", features | {"val1": np.zeros((90, 12))})
    with pytest.raises(UserError, match=r"val1 has 50 label lines, but .* holds its frames 1 to 90"):
        run.main(settings("va", tmp_path / "o", features=(longer,)))
    with pytest.raises(UserError, match=r"cache has frames 1 to 50 of val1, .*longer has 1 to 90"):
        run.main(settings("va", tmp_path / "o", features=(corpus / "cache", longer)))
    broken = write_cache(tmp_path / "broken", features)
    tensors = load_file(broken / "val1.safetensors")
    tensors["valid"][6], tensors["features"][6, 3] = True, float("nan")
    save_file(tensors, broken / "val1.safetensors")
    finish_cache(broken, made_by="test", config={}, parents={}, feature_id="id", dim=12)  # its header knows of it
    with pytest.raises(UserError, match=r"val1\.safetensors: the features of frame 7 are not finite"):
        run.main(settings("va", tmp_path / "o", features=(broken,)))
    with pytest.raises(UserError, match="joins two feature caches, but got 1"):
        run.main(settings("va", tmp_path / "o", fusion="attention"))
    with pytest.raises(UserError, match="width 8 is not divisible by 3 attention heads"):
        run.main(settings("va", tmp_path / "o", attention_heads=3))
    assert not (tmp_path / "o").exists()


def test_a_diverging_loss_is_reported(settings, tmp_path):
    with pytest.raises(UserError, match="the loss of step"):
        run.main(settings("va", tmp_path / "o", lr=1e9, clip_grad=0.0, warmup=0.0))


# The command line


def script(*arguments):
    return processes.run("temporal/run.py", *arguments)


def test_command_line(corpus, tmp_path):
    done = script(
        "va",
        "framewise",
        "--features",
        corpus / "cache",
        "--labels",
        corpus / "release",
        "--epochs",
        1,
        "--out",
        tmp_path / "o",
    )
    assert done.returncode == 0, done.stderr
    assert (
        "held out (they chose, so it is too high):" in done.stdout
        and (tmp_path / "o" / "head" / "config.json").exists()
    )
    wrong = script(
        "va", "framewise", "--features", corpus / "none", "--labels", corpus / "release", "--out", tmp_path / "p"
    )
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: ") and "Traceback" not in wrong.stderr
    assert len(wrong.stderr.strip().splitlines()) == 1 and not (tmp_path / "p").exists()


def test_help_names_tasks_and_recipes():
    overview = script("--help")
    assert overview.returncode == 0 and "ling2024" in overview.stdout and "joint" in overview.stdout
    assert script("nothing").returncode == 2


def test_help_does_not_import_torch():
    code = (
        "import sys, temporal.run, temporal.submit, temporal.evaluate, temporal.recipes; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_recipe_trains(settings, corpus, tmp_path, monkeypatch):
    """And the head that is written gives the scores that the run reports, smoothing and thresholds included."""
    from temporal import evaluate, results
    from temporal.recipes import recipes

    monkeypatch.setattr(results, "write_run_report", lambda *_: None)

    small = {
        "window": 10,
        "stride": 5,
        "width": 8,
        "feedforward": 8,
        "attention_heads": 2,
        "fusion_width": 8,
        "epochs": 1,
    }
    small |= {"batch_size": 64, "evaluations": 1, "precision": "fp32", "tune_on": "hold_out"}
    for task in ("va", "expr", "au"):
        for name, (_, config) in recipes(task).items():
            if task != "expr" and name not in ("ours", "ling2024", "min2024", "nguyen2024"):
                continue  # differs from these in nothing that depends on the task
            smaller = {"layers": min(config.layers, 1), "hidden": min(config.hidden, 8)}
            smaller["tcn_channels"] = tuple(8 for _ in config.tcn_channels)
            features = (corpus / "cache", corpus / ("cache" if name == "nguyen2024-mean" else "view"))
            options = {"features": features, "labels": corpus / "release", "out": tmp_path / task / name}
            own = run.main(replace(config, **small, **smaller, **options))["validation"][task]
            options = {"predictions": tmp_path / task / name / "validation", "labels": corpus / "release"}
            again = evaluate.main(evaluate.Evaluate(task=task, **options, heads=(tmp_path / task / name,)))
            assert again["score"] == pytest.approx(own["score"], abs=1e-6), name
            assert again["frames"] == own["frames"] and own["videos"] == len(VALIDATION), name


def test_batches_depend_on_seed_and_step_alone(settings, tmp_path):
    from temporal.windows import Windows
    from wildaffect.training.batches import BatchPlan

    config = settings("va", tmp_path)
    windows = Windows.cover([(0, 300), (300, 40)], config.window, config.stride)
    plan = BatchPlan.derive(count=len(windows), batch_size=8, most=8, rank=0, world=1, seed=3)
    from itertools import islice

    whole = list(islice(train.batches(windows, plan, 0, config), 9))
    later = list(islice(train.batches(windows, plan, 6, config), 3))
    for a, b in zip(whole[6:], later, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
