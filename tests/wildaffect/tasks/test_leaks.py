"""Which recordings' labels were seen."""

import pytest

from checkpoints.errors import UserError
from wildaffect.tasks.leaks import clean_scores, scoreable, together


def test_parts_of_a_recording_leak_like_the_recording():
    """They show the same people in the same room."""
    ids = ["24-30-1920x1080-2", "video45_7_left", "video46"]
    seen = {"expr": ["24-30-1920x1080-1", "video45_1"]}
    assert scoreable(ids, tasks={"va"}, encoder=seen, head=(), allow_leak=False, rule_clean=False) == ["video46"]


def test_what_is_left_may_be_nothing(capsys):
    seen = {"tasks": {"expr"}, "encoder": {"expr": ["a"]}, "head": ["b"], "allow_leak": False, "rule_clean": False}
    assert scoreable(["a", "b_left"], **seen, required=False) == []
    assert "2 of 2 labelled sequences (such as a) taught or chose the encoder or the head" in capsys.readouterr().err
    with pytest.raises(UserError, match="no other is left to score"):
        scoreable(["a", "b_left"], **seen)
    assert scoreable(["b"], **seen | {"allow_leak": True}) == ["b"]
    assert "they are scored anyway" in capsys.readouterr().err
    assert scoreable([], **seen) == []


def test_ids_of_several_artifacts_by_task():
    assert together({"expr": ["b", "a"]}, {"va": []}, {"expr": {"a", "c"}, "au": ["d"]}) == {
        "au": ["d"],
        "expr": ["a", "b", "c"],
    }
    assert together() == {}


def test_scores_that_taught_or_chose_are_not_clean():
    record = {"validation": {"va": {"score": 0.5}}, "scored_on": ["a_left", "video45_2"]}
    assert clean_scores(record, ["b", "c"]) == record["validation"]
    assert clean_scores(record, ["a_right"]) == clean_scores(record, ["video45_7"]) == {}
    assert clean_scores({"validation": record["validation"]}, []) == {}  # it does not say what was scored
    assert clean_scores(record | {"validation": None}, []) == {}
