"""The drawing: every action unit is visible, people differ, landmarks are right."""

import itertools

import numpy as np
import pytest

from synthwild.face import draw_face
from synthwild.head import HeadPainter
from synthwild.people import HIDDEN_AUS, Action, Identity, Pose, random_identity
from synthwild.process import random_temper, simulate
from synthwild.scene import Actor, film
from wildaffect.tasks import AUS

SIZE = 160
POSE = Pose(SIZE / 2, SIZE / 2, 39.0)


def person(seed: int) -> Identity:
    return random_identity(np.random.default_rng(seed))


def picture(who: Identity, pose: Pose = POSE, **au: float) -> np.ndarray:
    canvas = np.full((SIZE, SIZE, 3), 150, np.uint8)
    draw_face(canvas, who, Action(au), pose)
    return canvas


def changed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pixels that visibly differ."""
    return np.abs(a.astype(int) - b.astype(int)).max(2) > 25


@pytest.mark.parametrize("name", [*AUS, *HIDDEN_AUS])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_unit_changes_the_drawing(name: str, seed: int) -> None:
    who = person(seed)
    least = 12 if name in AUS else 3  # the stretched lips of AU20 are a matter of a few pixels
    assert changed(picture(who), picture(who, **{name: 1.0})).sum() > least


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_two_units_look_alike(seed: int) -> None:
    who = person(seed)
    drawn = {name: picture(who, **{name: 1.0}) for name in AUS}
    for one, other in itertools.combinations(AUS, 2):
        assert changed(drawn[one], drawn[other]).sum() > 20, (one, other)


def test_units_act_where_the_anatomy_says() -> None:
    """Brow units do not change the mouth, nor mouth units the brows."""
    who = person(3)
    rest, split = picture(who), SIZE // 2 + 4
    for name in ("AU1", "AU2", "AU4"):
        assert not changed(rest, picture(who, **{name: 1.0}))[split:].any()
    for name in ("AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26"):
        assert not changed(rest, picture(who, **{name: 1.0}))[: split - 10].any()


def test_intensity_grows_with_the_change() -> None:
    who = person(4)
    sizes = [changed(picture(who), picture(who, AU26=level)).sum() for level in (0.2, 0.6, 1.0)]
    assert sizes[0] < sizes[1] < sizes[2]


def test_people_differ() -> None:
    faces = [picture(person(seed)) for seed in range(12)]
    for one, other in itertools.combinations(faces, 2):
        assert changed(one, other).mean() > 0.05


def test_landmarks_move_with_the_head() -> None:
    canvas = np.zeros((SIZE, SIZE, 3), np.uint8)
    who = person(5)
    here = draw_face(canvas.copy(), who, Action(), POSE)
    there = draw_face(canvas.copy(), who, Action(), Pose(POSE.x + 10, POSE.y - 5, POSE.scale))
    assert np.allclose(there.points - here.points, [10, -5])
    left, right, nose, mouth_left, mouth_right = here.points
    assert left[0] < nose[0] < right[0]
    assert mouth_left[0] < mouth_right[0]
    assert left[1] < nose[1] < mouth_left[1]
    rolled = draw_face(canvas.copy(), who, Action(), Pose(POSE.x, POSE.y, POSE.scale, roll=0.3))
    slope = np.arctan2(*(rolled.points[1] - rolled.points[0])[::-1])
    assert abs(slope - 0.3) < 0.02
    smile = draw_face(canvas.copy(), who, Action({"AU12": 1.0}), POSE)
    assert smile.points[3, 1] < mouth_left[1] - 3
    turned = draw_face(canvas.copy(), who, Action(), Pose(POSE.x, POSE.y, POSE.scale, yaw=0.4))
    assert turned.points[2, 0] > nose[0] + 5


def test_eyes_stand_where_the_landmarks_say() -> None:
    """The pupils are the darkest spots near the eye landmarks."""
    canvas = np.full((SIZE, SIZE, 3), 150, np.uint8)
    who = person(6)
    marks = draw_face(canvas, who, Action(), POSE)
    for x, y in marks.points[:2].round().astype(int):
        assert canvas[y - 3 : y + 4, x - 3 : x + 4].max(2).min() < 60


def test_a_face_may_lie_outside_the_canvas() -> None:
    canvas = np.full((SIZE, SIZE, 3), 150, np.uint8)
    draw_face(canvas, person(7), Action(), Pose(-SIZE, SIZE / 2, 39.0))
    draw_face(canvas, person(7), Action(), Pose(2.0, 3.0, 39.0))


def test_head_outline_follows_the_jaw() -> None:
    canvas = np.zeros((SIZE, SIZE, 3), np.uint8)
    chin = [HeadPainter(canvas, person(8), Action({"AU26": v}), POSE).outline()[:, 1].max() for v in (0.0, 1.0)]
    assert chin[1] > chin[0] + 0.1


def test_film_yields_landmarks_unless_the_face_is_away() -> None:
    rng = np.random.default_rng(0)
    who = person(9)
    course = simulate(rng, 40, random_temper(rng), 18.0, (0, 4))
    actor = Actor(who, lambda canvas, action, pose: draw_face(canvas, who, action, pose), course)
    frames = list(film(rng, [actor], (SIZE, SIZE), 40, away=(15, 25)))
    assert len(frames) == 40
    assert all(picture.shape == (SIZE, SIZE, 3) and picture.dtype == np.uint8 for picture, _ in frames)
    seen = [marks[0] is not None for _, marks in frames]
    assert not any(seen[15:25])
    assert all(seen[:8])
    assert all(seen[32:])
