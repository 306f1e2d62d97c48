"""Action units move the shapes they are named for, and random faces have labels in 0..1."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from checkpoints.errors import UserError
from synthwild.morphable import MorphableModel, read_model
from synthwild.muscles import (
    RESTING,
    SHAPES,
    Muscles,
    random_action,
    random_muscles,
    sides,
    visible_intensities,
    without_conflicts,
)
from synthwild.people import Action
from wildaffect.tasks import AUS

MODEL = Path(__file__).parents[3] / "shared" / "facemodel" / "ict_light.npz"


def test_left_and_right_shapes_are_found_and_a_missing_one_is_named() -> None:
    assert sides("jawOpen", ("jawOpen", "mouthSmile_L", "mouthSmile_R")) == ("jawOpen",)
    assert sides("mouthSmile", ("jawOpen", "mouthSmile_L", "mouthSmile_R")) == ("mouthSmile_L", "mouthSmile_R")
    with pytest.raises(UserError, match="no shape browDown"):
        sides("browDown", ("jawOpen",))


def test_pressed_lips_exclude_a_dropped_jaw() -> None:
    for seed in range(20):
        units = {"AU24": 0.8, "AU26": 0.7}
        without_conflicts(np.random.default_rng(seed), units)
        assert len(units) == 1


def shapes() -> tuple[str, ...]:
    """Names of all shapes that muscles need, on both sides."""
    names = {shape for shapes in SHAPES.values() for shape in shapes} | {*RESTING}
    return tuple(sorted(name + side for name in names for side in ("_L", "_R")))


PEOPLE = """
import numpy as np, types
from synthwild.muscles import random_muscles
from tests.synthwild.test_muscles import shapes
muscles = random_muscles(np.random.default_rng(0), types.SimpleNamespace(expression_names=shapes()))
print(muscles.strength.tolist())
"""


def test_a_person_depends_on_the_seed_alone() -> None:
    model = SimpleNamespace(expression_names=shapes())
    here = random_muscles(np.random.default_rng(0), cast("MorphableModel", model)).strength.tolist()
    root, other = Path(__file__).parents[2], os.environ | {"PYTHONHASHSEED": "1"}  # sets have another order
    there = subprocess.run([sys.executable, "-c", PEOPLE], cwd=root, env=other, capture_output=True, check=True)
    assert here == json.loads(there.stdout)


def test_pressed_lips_part_no_lips_and_parted_ones_do() -> None:
    names, points = ("jawOpen",), np.zeros((68, 3))
    points[36:42, 0], points[42:48, 0] = -3.2, 3.2
    points[61:64, 1] = 0.55  # half a centimetre above the lower lip
    seen = [visible_intensities(Action({"AU24": v}), np.zeros(1), names, points)[AUS.index("AU25")] for v in (0.0, 1.0)]
    assert seen[0] == pytest.approx(0.6, abs=0.01)
    assert seen[1] < 0.05


@pytest.mark.skipif(not MODEL.is_file(), reason="needs ../shared/facemodel")
def test_every_unit_moves_the_mesh_and_its_own_label() -> None:
    model = read_model(MODEL)
    names = model.expression_names
    plain = Muscles(names, np.ones(len(names)), np.zeros(len(names)))
    assert not plain.weights(Action()).any()
    for index, name in enumerate(AUS):
        action = Action({name: 1.0})
        weights = plain.weights(action)
        moved = np.tensordot(weights, model.expression, 1)
        assert np.linalg.norm(moved, axis=1).max() > 0.25, name  # a quarter of a centimetre
        marks = (model.neutral + moved)[model.landmarks68]
        assert visible_intensities(action, weights, names, marks)[index] > 0.6, name


@pytest.mark.skipif(not MODEL.is_file(), reason="needs ../shared/facemodel")
def test_random_faces_have_every_unit_and_mostly_independent_ones() -> None:
    model, rng = read_model(MODEL), np.random.default_rng(0)
    neutral, moves = model.neutral[model.landmarks68], model.expression[:, model.landmarks68]
    rows = []
    for _ in range(300):
        action, extra = random_action(rng)
        weights = random_muscles(rng, model).weights(action, extra)
        marks = neutral + np.tensordot(weights, moves, 1)
        rows.append(visible_intensities(action, weights, model.expression_names, marks))
    shares = (np.array(rows) > 0.2).mean(0)
    assert np.isfinite(rows).all()
    assert np.min(rows) >= 0
    assert np.max(rows) <= 1
    assert (shares > 0.08).all(), dict(zip(AUS, shares.round(2), strict=True))
    # Lips part in many ways (AU10, AU15, AU20 and AU26 do it too), and AU25 is measured on the mesh.
    most = np.where(np.array(AUS) == "AU25", 0.65, 0.35)
    assert (shares < most).all(), dict(zip(AUS, shares.round(2), strict=True))
