import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from checkpoints.errors import UserError
from checkpoints.ranges import check_ranges
from features.run import Extract
from finetune.recipes import RECIPES as FINETUNE
from pretrain.recipes import RECIPES as PRETRAIN
from temporal.recipes import recipes
from tests.test_imports import COMMANDS, ROOT
from wildaffect.tasks import TASKS


@pytest.mark.parametrize("recipes", [PRETRAIN, FINETUNE, *({**recipes(task)} for task in (*TASKS, "joint"))])
def test_every_recipe_passes(recipes):
    for _, config in recipes.values():
        check_ranges(config)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 0}, "--batch-size 0: expected a number from 1 to 1,000,000"),
        ({"drop_path": 1.5}, "--drop-path 1.5: expected a number from 0 to below 1"),
        ({"lr": 0.0}, "--lr 0.0: expected a number above 0"),
        ({"lr": float("nan")}, "--lr nan: expected a number above 0"),
        ({"epochs": float("inf")}, "--epochs inf: expected a number from above 0 to 1,000,000,000"),
        ({"batch_size": 10**12}, "--batch-size 1000000000000: expected a number from 1 to 1,000,000"),
        ({"workers": -1}, "--workers -1: expected a number from 0 to 1,024"),
        ({"seed": -1}, "--seed -1: expected a number from 0 to 2,147,483,647"),
        ({"crop_scale": (0.0, 1.0)}, "--crop-scale 0.0 1.0: expected a number from above 0 to 1"),
        ({"crop_scale": (1.0, 0.5)}, "--crop-scale 1 0.5: expected the smaller fraction first"),
        ({"validation_frames_per_video": -1}, "--validation-frames-per-video -1: expected 0 or more"),
        ({"randaugment": 40}, "--randaugment 40: expected a number from 0 to 30"),
    ],
)
def test_what_is_out_of_range_is_named(changes, said):
    with pytest.raises(UserError) as error:
        check_ranges(replace(FINETUNE["demo"][1], **changes))
    assert str(error.value) == said


def test_other_commands_share_the_ranges():
    with pytest.raises(UserError, match="--batch-size -1: expected a number from 1 to 1,000,000"):
        check_ranges(Extract(encoder="e", faces=Path("f"), out=Path("o"), batch_size=-1))


def test_what_has_no_range_may_be_anything():
    @dataclass
    class Config:
        offset: int = -3
        compile: bool = False

    check_ranges(Config())


def test_options_that_do_not_fit_together_are_named():
    ours = recipes("expr")["ours"][1]
    with pytest.raises(UserError, match=r"--stride 128 is longer than --window 100: .* use --stride 100 or less"):
        check_ranges(replace(ours, window=100))
    with pytest.raises(UserError, match="--folds 1"):
        check_ranges(replace(ours, folds=1))
    check_ranges(replace(ours, window=100, stride=100))
    check_ranges(replace(recipes("expr")["min2024"][1], stride=200))  # one prediction per window: only training skips
    with pytest.raises(UserError, match="--window 1000000: expected a number from 1 to 10,000"):
        check_ranges(replace(ours, window=1_000_000))


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_with_numbers_checks_them(path):
    """In its own file, or in the one that does its work."""
    text = path.read_text()
    numbers = re.search(r"^    [a-z_]+: (int|float)\b", text, re.MULTILINE)
    assert not numbers or "check_ranges(" in text
