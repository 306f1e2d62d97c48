"""Action units move the shapes they are named for, and random faces have labels in 0..1."""

from pathlib import Path

import numpy as np
import pytest

from checkpoints.errors import UserError
from synthwild.morphable import read_model
from synthwild.muscles import Muscles, random_action, random_muscles, sides, visible_intensities, without_conflicts
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
    rows = []
    for _ in range(300):
        action, extra = random_action(rng)
        weights = random_muscles(rng, model).weights(action, extra)
        marks = (model.neutral + np.tensordot(weights, model.expression, 1))[model.landmarks68]
        rows.append(visible_intensities(action, weights, model.expression_names, marks))
    shares = (np.array(rows) > 0.2).mean(0)
    assert np.isfinite(rows).all()
    assert np.min(rows) >= 0
    assert np.max(rows) <= 1
    assert (shares > 0.08).all(), dict(zip(AUS, shares.round(2), strict=True))
    # Lips part in many ways (AU10, AU15, AU20 and AU26 do it too), and AU25 is measured on the mesh.
    most = np.where(np.array(AUS) == "AU25", 0.65, 0.35)
    assert (shares < most).all(), dict(zip(AUS, shares.round(2), strict=True))
