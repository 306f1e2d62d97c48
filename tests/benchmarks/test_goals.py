"""The table of goals, on the recorded results of the benchmarks."""

import pytest

from benchmarks.goals import GOALS, ROOT, as_table, measured
from checkpoints.artifact import read_json
from checkpoints.errors import UserError

RECORDED = {"head_cost": "head_real_size"}


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.work)
def test_every_goal_finds_its_figure(goal):
    result = read_json(ROOT / "benchmarks" / "results" / f"{RECORDED.get(goal.script, goal.script)}.json")
    assert goal.value(result) > 0
    assert (ROOT / "benchmarks" / f"{goal.script}.py").exists()
    assert goal.met(goal.goal) and not goal.met(goal.goal * (0.9 if goal.least else 1.1))


def test_a_goal_is_met_if_every_round_meets_it():
    least, most = GOALS[0], next(goal for goal in GOALS if not goal.least)
    lines = as_table([least, most], {least.work: [6.1, 5.9], most.work: [30.0, 34.96]}).splitlines()
    assert lines[2] == f"| {least.work} | 6.1, 5.9 | >= 6 | no |"
    assert lines[3] == f"| {most.work} | 30, 35 | <= 35 | yes |"


def test_a_benchmark_that_fails_is_named():
    with pytest.raises(UserError, match=r"benchmarks/nothing\.py failed: .*No module named benchmarks\.nothing"):
        measured("nothing")
