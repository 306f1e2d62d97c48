"""Videos that taught or chose an encoder, or validate another task: what trains on them and what scores them."""

import json

import numpy as np
import pytest

from checkpoints.artifact import write_sealed
from checkpoints.errors import UserError
from features.cache import FeatureCache
from temporal import run
from temporal.caches import open_caches
from temporal.heads import load_head
from temporal.labels import read_labels
from temporal.splits import apart, make_splits
from tests.temporal.corpus import TRAIN, VALIDATION, make_labels, write_cache, write_labels
from wildaffect.tasks import TASKS


def test_leaks_are_left_out_warned_of_or_refused(settings, corpus, tmp_path, capsys):
    source = FeatureCache(corpus / "cache")
    features = {id: source.read(id).features for id in source.ids}

    def cache(name, trained_on):
        return write_cache(tmp_path / name, features, trained_on=trained_on)

    some = cache("some", {"expr": ["val1", "1-30-640x360"]})
    quick = {"features": (some,), "epochs": 1, "hold_out": 0.2}
    summary = run.main(settings("expr", tmp_path / "a", **quick))
    assert "1 of 3 labelled sequences (such as val1)" in capsys.readouterr().err
    assert summary["validation"]["expr"]["videos"] == 2
    record = load_head(tmp_path / "a").record
    assert record["scored_on"] == ["val2_right", "val3"]
    assert record["chosen_on"] and "1-30-640x360" not in record["chosen_on"]  # its features are too good to choose on
    leaky = run.main(settings("expr", tmp_path / "b", allow_leak=True, **quick))
    assert leaky["validation"]["expr"]["videos"] == 3 and leaky["leaked"] == 1
    assert "validation (1 sequences taught or chose the encoder, so it is too high)" in capsys.readouterr().out
    with pytest.raises(UserError, match="--rule-clean: 1 of 3"):
        run.main(settings("expr", tmp_path / "c", rule_clean=True, **quick))
    with pytest.raises(UserError, match="--rule-clean: expr labels of 2 sequences taught or chose"):
        run.main(settings("va", tmp_path / "c", rule_clean=True, **quick))
    every = {"features": (cache("every", {"expr": list(VALIDATION)}),), "epochs": 1}
    assert run.main(settings("expr", tmp_path / "c", **every))["validation"] is None  # a head, but no score
    with pytest.raises(UserError, match="no other is left to score"):  # their features would mislead the choice
        run.main(settings("expr", tmp_path / "d", tune_on="validation", **every))


def test_what_chose_the_encoder_counts_as_seen(settings, corpus, tmp_path, capsys):
    """As stage 2 does, which keeps the best of many evaluations on the official validation set."""
    source = FeatureCache(corpus / "cache")
    features = {id: source.read(id).features for id in source.ids}

    def chosen_by(*ids, **changes):
        cache = write_cache(tmp_path / f"by{len(ids)}", features, chosen_on={"expr": list(ids)})
        return {"features": (cache,), "epochs": 1, **changes}

    some = run.main(settings("expr", tmp_path / "some", **chosen_by("val1")))
    assert some["validation"]["expr"]["videos"] == 2 and some["leaked"] == 0
    capsys.readouterr()
    every = run.main(settings("expr", tmp_path / "every", **chosen_by(*VALIDATION)))
    output = capsys.readouterr()
    assert every["validation"] is None and "no score on videos used neither for training" in output.out
    assert "3 of 3 labelled sequences (such as val1) taught or chose the encoder" in output.err
    assert "no score on videos used neither for training" in (tmp_path / "every" / "report.html").read_text()
    head = load_head(tmp_path / "every")
    assert head.encoder_chosen_on == {"expr": sorted(VALIDATION)} and not head.record["scored_on"]
    assert "None on videos used neither for training" in (tmp_path / "every/head/README.md").read_text()
    with pytest.raises(UserError, match="--rule-clean: 3 of 3"):
        run.main(settings("expr", tmp_path / "c", **chosen_by(*VALIDATION, rule_clean=True)))
    for more in ({}, {"tune_on": "validation"}):
        with pytest.raises(UserError, match="--rule-clean: expr labels of 3 sequences taught or chose"):
            run.main(settings("va", tmp_path / "c", **chosen_by(*VALIDATION, rule_clean=True, **more)))
    again = run.main(settings("expr", tmp_path / "again", **chosen_by(*VALIDATION, tune_on="validation")))
    assert again["held_out"]["expr"]["videos"] == 3 and again["validation"] is None  # they may choose once more


def test_a_cache_that_does_not_say_what_chose_its_encoder(settings, corpus, tmp_path, capsys):
    source = FeatureCache(corpus / "cache")
    cache = write_cache(tmp_path / "old", {id: source.read(id).features for id in source.ids})
    header = json.loads((cache / "features.json").read_text())
    del header["chosen_on"]
    write_sealed(cache / "features.json", header)
    old = {"features": (cache,), "epochs": 1}
    assert run.main(settings("va", tmp_path / "a", **old))["validation"]["va"]["videos"] == 3
    assert "old does not say whose labels chose its encoder: run features/run.py again" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"--rule-clean: .*old does not say"):
        run.main(settings("va", tmp_path / "b", rule_clean=True, **old))


def test_what_validates_one_task_trains_no_other(settings, tmp_path):
    """As in the 6th ABAW, where 29 of 76 VA validation files are in the Expr training set."""
    rng = np.random.default_rng(0)
    for name, split, id in (
        ("va", "Train", "a"),
        ("va", "Validation", "b"),
        ("expr", "Train", "b"),
        ("expr", "Train", "c"),
    ):
        write_labels(tmp_path / TASKS[name].folders[0] / f"{split}_Set", id, name, make_labels(name, 20, rng))
    config = settings("joint", tmp_path / "o", labels=tmp_path)
    labels, train, validation = read_labels(config, open_caches(config.features))
    assert apart(train, validation) == ["a", "c"] and validation == ["b"]
    assert set(labels["va"]) == {"a", "b"} and set(labels["expr"]) == {"c"}  # b's Expr labels are training labels


def test_held_out_videos_are_those_the_encoder_did_not_learn(settings, corpus, tmp_path):
    source = FeatureCache(corpus / "cache")
    seen = [id for id in TRAIN if not id.startswith(("2-", "9", "5-"))]
    cache = write_cache(tmp_path / "c", {id: source.read(id).features for id in source.ids}, trained_on={"expr": seen})
    (split,) = make_splits(TRAIN, [], folds=[], share=0.1, seed=0, seen=FeatureCache(cache).trained_on["expr"])
    assert split.tune and not set(split.tune) & set(seen)
    assert sorted(split.tune + split.train) == sorted(TRAIN)
