"""Stage 2 from end to end: learning, resuming, refusals."""

import json
import signal
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoints.artifact import write_sealed
from checkpoints.encoder import load_encoder
from checkpoints.errors import UserError
from checkpoints.tensors import load_tensors
from finetune.finish import synthetic_labels
from finetune.frames import LabelledFrames
from finetune.labels import Split
from finetune.recipes import RECIPES
from finetune.run import main
from tests import processes
from tests.finetune.corpus import TINY, TRAIN, VALIDATION, make_encoder, make_store
from wildaffect.tasks import AUS, EXPRESSIONS

ROOT = Path(__file__).parents[2]


def config(corpus, out, **changes):
    return replace(TINY, faces=corpus.faces, labels=corpus.labels, encoder=str(corpus.encoder), out=out, **changes)


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("finetuned") / "whole"
    main(config(corpus, out))
    return out


def product(run):
    names = ("encoder/model.safetensors", "encoder/config.json", "classifier.safetensors", "finished.json")
    return {name: (run / name).read_bytes() for name in names}


def test_learns_and_writes_its_product(whole, corpus):
    finished = json.loads((whole / "finished.json").read_text())
    assert finished["macro_f1"] > 0.6
    assert finished["classes"] == list(EXPRESSIONS[:4])
    assert sum(map(sum, finished["confusion"])) == finished["frames"] == 2 * (12 - 1 - 1)
    encoder = load_encoder(whole)
    assert encoder.provenance == {
        "stage": "finetune",
        "synthetic": True,
        "unlabelled_videos": ["u1"],
        "labelled_videos": {"expr": sorted(TRAIN)},
        "chosen_on": {"expr": sorted(VALIDATION)},
        "synthetic_labels": ["expr"],
    }
    assert not {"drop_path_rate", "patch_drop_rate"} & encoder.config.kwargs.keys()
    assert load_tensors(whole / "classifier.safetensors")["weight"].shape == (8, encoder.dim)
    assert encoder.fingerprint != load_encoder(corpus.encoder).fingerprint
    card = (whole / "encoder" / "README.md").read_text()
    assert "None on videos used neither for training nor for" in card and "Labels of 2 videos or pictures chose" in card
    report = (whole / "report.html").read_text()
    assert "Synthetic data" in report and "Most confident mistakes" in report


@pytest.mark.parametrize("before", [{"chosen_on": {"expr": ["p1"]}}, {"validation_videos": ["p1"]}])
def test_what_chose_the_parent_chose_the_product(corpus, tmp_path, before):
    """Also where the parent is of a version that had another name for it."""
    place = make_encoder(tmp_path / "parent")
    header = json.loads((place / "config.json").read_text())
    header["provenance"] |= before
    write_sealed(place / "config.json", header)
    main(replace(config(corpus, tmp_path / "run", epochs=0.2, evaluations=1), encoder=str(place)))
    assert load_encoder(tmp_path / "run").provenance["chosen_on"] == {"expr": ["p1", *sorted(VALIDATION)]}
    assert "which chose the step" in (tmp_path / "run" / "report.html").read_text()


def test_action_units_are_learnt_beside_the_expressions(whole, corpus, tmp_path):
    rows = [f"{id},{frame}," + ",".join(["0.5"] * 12) for id in TRAIN for frame in (1, 2, 3)]
    (tmp_path / "au.csv").write_text("\n".join(["video,frame," + ",".join(AUS), *rows]) + "\n")
    settings = config(corpus, tmp_path / "run", epochs=0.2, evaluations=1, au_faces=corpus.faces)
    settings = replace(settings, faces=make_store(tmp_path / "real", synthetic=False))
    with pytest.raises(UserError, match="pass both or neither"):
        main(settings)
    main(replace(settings, au_labels=tmp_path / "au.csv"))
    encoder = load_encoder(tmp_path / "run")
    assert encoder.provenance["labelled_videos"] == {"au": sorted(TRAIN), "expr": sorted(TRAIN)}
    assert not encoder.provenance["synthetic"] and encoder.provenance["synthetic_labels"] == ["au"]
    assert load_tensors(tmp_path / "run" / "classifier.safetensors")["weight"].shape == (8, encoder.dim)


@pytest.mark.parametrize(
    "before, expected",
    [
        ({}, ["au"]),
        ({"labelled_videos": {"au": ["a"]}}, []),  # real, or of before this was recorded
        ({"labelled_videos": {"au": ["a"], "va": ["a"]}, "synthetic_labels": ["au", "va"]}, ["au", "va"]),
        ({"labelled_videos": {"expr": ["a"]}, "synthetic_labels": ["expr"]}, ["au"]),
    ],
)
def test_labels_are_synthetic_if_all_of_a_task_are(before, expected):
    none = LabelledFrames(np.zeros(0), np.zeros((0, 8)), np.zeros(1), [])
    assert synthetic_labels(before, Split(none, none, units=["b"], synthetic=["au"])) == expected


def test_kept_weights_are_those_of_the_best_validation(whole):
    records = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    scores = {record["step"]: record["validation_macro_f1"] for record in records if "validation_macro_f1" in record}
    finished = json.loads((whole / "finished.json").read_text())
    assert len(scores) >= 4
    assert scores[finished["step"]] == max(scores.values()) == finished["macro_f1"]


def test_finished_run_is_left_alone(whole, corpus, capsys):
    before = product(whole)
    assert main(config(corpus, whole)) == json.loads((whole / "finished.json").read_text())
    assert "is finished" in capsys.readouterr().out
    assert product(whole) == before


@pytest.mark.parametrize("ahead", [False, True])
def test_interrupted_run_ends_the_same(whole, corpus, tmp_path, monkeypatch, ahead):
    """Also if the best weights are newer than the last state that survived the kill."""
    from wildaffect.training.loop import Loop

    save = Loop.save
    out = tmp_path / "run"

    def die(loop):
        if not (ahead and loop.step > 8):
            save(loop)
        if loop.step >= 14:
            raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "save", die)
    with pytest.raises(KeyboardInterrupt):
        main(config(corpus, out))
    monkeypatch.undo()
    main(config(corpus, out))
    assert product(out) == product(whole)


def arguments(given):
    """The command line for some settings, without the interpreter."""
    shown = {field.name: getattr(given, field.name) for field in fields(given)}
    differing = {name: value for name, value in shown.items() if value != getattr(RECIPES["demo"][1], name)}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in differing.items()]
    return [str(ROOT / "finetune" / "run.py"), "demo", *options]


def test_killed_process_ends_the_same(whole, corpus, tmp_path):
    out = tmp_path / "run"
    given = config(corpus, out)
    process = processes.start(*arguments(given))
    while process.poll() is None and len(list((out / "state").glob("step_*"))) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "finished.json").exists()
    main(given)
    assert product(out) == product(whole)


def test_two_processes_train_and_choose_the_same(corpus, tmp_path):
    plain = {"drop_path": 0.0, "dropout": 0.0, "epochs": 1.0, "evaluations": 2}
    one, two = (config(corpus, tmp_path / name, **plain) for name in ("one", "two"))
    main(one)
    processes.run_ranks(*arguments(two))
    finished = [json.loads((run.out / "finished.json").read_text()) for run in (one, two)]
    assert finished[0]["confusion"] == finished[1]["confusion"] and finished[0]["step"] == finished[1]["step"]
    ours, theirs = (load_tensors(run.out / "encoder" / "model.safetensors") for run in (one, two))
    assert max((ours[name] - theirs[name]).abs().max() for name in ours) < 1e-3


@pytest.mark.parametrize("changes", [{"mixup": 0.4, "cutmix": 1.0, "randaugment": 5, "imbalance": "focal"},
                                     {"pooling": "grid", "patch_drop": 0.0, "imbalance": "class_weights"},
                                     {"pooling": "parent", "patch_drop": 0.5, "schedule": "step", "ema_decay": 0.0},
                                     {"view": "eyes_mouth", "imbalance": "none"}])  # fmt: skip
def test_every_choice_trains(corpus, tmp_path, changes):
    out = tmp_path / "run"
    assert main(config(corpus, out, epochs=1, evaluations=1, **changes))["frames"] == 20
    encoder = load_encoder(out)
    assert encoder(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, encoder.dim)


def test_micro_batches_do_not_change_the_training(corpus, tmp_path):
    """Without batch statistics or dropout, two halves of a batch are the batch."""
    plain = {"drop_path": 0.0, "dropout": 0.0, "epochs": 1.0, "evaluations": 1}
    weights = []
    for size in (16, 8):
        main(config(corpus, tmp_path / str(size), micro_batch_size=size, **plain))
        weights.append(load_tensors(tmp_path / str(size) / "encoder" / "model.safetensors"))
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=2e-5, rtol=1e-3)


def test_recipes_differ_from_each_other():
    settings = [str(recipe) for _, recipe in RECIPES.values()]
    assert len(set(settings)) == len(settings)


def test_refusals(corpus, tmp_path):
    with pytest.raises(UserError, match=r"needs landmarks and .* has none"):
        main(config(corpus, tmp_path / "a", view="eyes_mouth_landmarks"))
    with pytest.raises(UserError, match="--patch-drop leaves holes"):
        main(config(corpus, tmp_path / "c", pooling="grid", patch_drop=0.5))
    wide = make_encoder(tmp_path / "wide", mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
    with pytest.raises(UserError, match=r"scaled to .0, 1. first: divide both by 255"):
        main(replace(config(corpus, tmp_path / "d"), encoder=str(wide)))
    with pytest.raises(UserError, match="does not exist"):
        main(replace(config(corpus, tmp_path / "e"), encoder=str(tmp_path / "nothing")))
    assert not any((tmp_path / name).exists() for name in "ade")


def test_other_image_size_is_said(corpus, tmp_path, capsys):
    large = make_encoder(tmp_path / "large", image_size=64)
    main(replace(config(corpus, tmp_path / "run", epochs=0.2), encoder=str(large)))
    assert "the store's faces are enlarged from 40 px to the encoder's 64 px" in capsys.readouterr().out


def test_run_of_another_store_is_not_resumed(whole, corpus, tmp_path):
    other = make_store(tmp_path / "other", seed=5)
    with pytest.raises(UserError, match="holds a run whose input faces is"):
        main(replace(config(corpus, whole), faces=other))
