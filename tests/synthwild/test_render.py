"""Rendered faces, on a tiny model: geometry, action units, stills, and a release."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("numba", reason="numba is not installed")

from checkpoints.artifact import read_json
from checkpoints.errors import UserError
from checkpoints.framing import ARCFACE
from synthwild import plan, stills
from synthwild.people import Action, Image, Landmarks, Pose
from synthwild.render import RenderedFace, anatomy_of, five, random_face
from synthwild.run import Config, generate
from tests.synthwild.tiny_model import write_tiny_model
from wildaffect.tasks import AUS, TASKS
from wildaffect.tasks.labels import TRAIN, read_annotations

SIDE = 96
POSE = Pose(SIDE / 2, SIDE / 2, 24.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "M.npz")


@pytest.fixture(scope="module")
def face(model: Path) -> RenderedFace:
    return random_face(np.random.default_rng(3), anatomy_of(model))


def drawn(face: RenderedFace, action: Action, pose: Pose = POSE) -> tuple[Image, Landmarks]:
    canvas = np.full((SIDE, SIDE, 3), 128, np.uint8)
    return canvas, face.draw(canvas, action, pose)


def test_landmarks_move_with_the_pose_as_those_of_drawn_faces_do(face: RenderedFace) -> None:
    _, here = drawn(face, Action())
    _, there = drawn(face, Action(), Pose(POSE.x + 10, POSE.y - 5, POSE.scale))
    assert np.allclose(there.points - here.points, [10, -5], atol=1e-3)
    assert np.allclose(there.box - here.box, [10, -5, 10, -5], atol=1e-3)
    _, rolled = drawn(face, Action(), Pose(POSE.x, POSE.y, POSE.scale, roll=0.3))
    eyes = rolled.points[1] - rolled.points[0]
    straight = here.points[1] - here.points[0]
    assert np.arctan2(eyes[1], eyes[0]) - np.arctan2(straight[1], straight[0]) == pytest.approx(0.3, abs=1e-3)
    _, turned = drawn(face, Action(), Pose(POSE.x, POSE.y, POSE.scale, yaw=0.4))
    assert turned.points[2, 0] > here.points[2, 0] + 3
    _, nodding = drawn(face, Action(), Pose(POSE.x, POSE.y, POSE.scale, pitch=-0.3))
    assert nodding.points[2, 1] > here.points[2, 1] + 2


def test_face_is_drawn_where_its_landmarks_are_and_nowhere_else(face: RenderedFace) -> None:
    canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
    marks = face.draw(canvas, Action(), POSE)
    x0, y0, x1, y1 = np.rint(marks.box).astype(int)
    inside = canvas[y0 + 8 : y1 - 8, x0 + 12 : x1 - 12]
    assert (inside.max(axis=2) > 0).all()
    assert not canvas[:8, :8].any()
    face.draw(canvas.copy(), Action(), Pose(-5000.0, 10.0, 24.0))  # out of the picture
    face.draw(canvas.copy(), Action(), Pose(2.0, 90.0, 24.0))


def test_aligned_pose_brings_the_landmarks_to_the_template(face: RenderedFace) -> None:
    points, _ = face.moved(Action())
    template = ARCFACE.template(SIDE)
    pose = face.aligned_pose(points, 0.2, -0.1, template)
    found = five(face.project(points[face.anatomy.model.landmarks68], pose)[:, :2])
    assert np.allclose(found.mean(0), template.mean(0), atol=0.01)
    assert np.abs(found - template).max() < 8
    tilted = face.aligned_pose(points, 0.2, -0.1, (template - SIDE / 2) @ [[0.8, 0.6], [-0.6, 0.8]] + SIDE / 2)
    assert tilted.roll - pose.roll == pytest.approx(np.arctan2(0.6, 0.8), abs=1e-6)


@pytest.mark.parametrize("name", AUS)
def test_every_unit_changes_the_picture_the_more_the_stronger_it_is(face: RenderedFace, name: str) -> None:
    rest, half, full = (drawn(face, Action({name: v}))[0].astype(float) for v in (0.0, 0.5, 1.0))
    assert np.abs(full - rest).sum() > 1.2 * np.abs(half - rest).sum() > 500


def test_stills_are_a_table_that_training_reads(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stills, "CHUNK", 6)
    config = Config(out=tmp_path / "a", faces="rendered", model=model, stills=81)
    generate(config.out, config)
    table = pq.read_table(config.out / "stills.parquet")
    assert len(table) == 81
    assert read_json(config.out / "synthwild.json")["counts"] == {"pictures": 81, "people": 21}
    values = np.stack([table[name].to_numpy() for name in AUS])
    assert values.min() >= 0
    assert values.max() <= 1
    assert (values.std(axis=1) > 0.05).all()
    split, person = np.array(table["split"]), table["person"].to_numpy()
    assert set(person[split == "validation"]) == {9, 19}
    picture = cv2.imdecode(np.frombuffer(table["image"][0].as_py()["bytes"], np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (128, 128, 3)
    assert np.ptp(picture.mean(axis=(0, 1))) > 0.5  # in colour
    again = stills.make_chunk(model, 0, 0)
    assert [row["image"]["bytes"] for row in again[:5]] == [row["bytes"] for row in table["image"].to_pylist()[:5]]


def test_release_of_rendered_faces_has_intensities_that_its_labels_follow(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {plan.TRAIN: 3, plan.VALIDATION: 1, plan.TEST: 1}
    small = plan.Size(1, few, dict.fromkeys(few, 12), 1, 4, 9.0, 64)
    monkeypatch.setitem(plan.SIZES, "tiny", small)
    config = Config(out=tmp_path / "r", size="tiny", faces="rendered", model=model)
    generate(config.out, config)
    assert {path.name for path in config.out.iterdir()} == {
        *("release", "answers", "unlabelled", "synthwild.json", "intensities.parquet")
    }
    assert len(list((config.out / "release" / "cropped_aligned").glob("*/*.jpg"))) > 40
    task = TASKS["au"]
    true = read_annotations(config.out / "intensities.parquet", task, TRAIN)
    marked = read_annotations(config.out / "release", task, TRAIN)
    assert true.keys() == marked.keys()
    for name, track in true.items():
        label = marked[name].labels[: len(track.labels)]
        both = track.mask & (label != task.marker)
        assert both.any()
        assert ((track.labels > 0.3) == (label == 1))[both].all()
    assert len(pq.read_table(config.out / "answers" / "intensities.parquet")) > 8


def test_options_that_do_not_fit_are_refused(model: Path, tmp_path: Path) -> None:
    for wrong, message in (
        ({"faces": "rendered"}, "--model M.npz go together"),
        ({"model": model}, "--model M.npz go together"),
        ({"stills": 5}, "--stills 5"),
        ({"faces": "rendered", "model": tmp_path / "no.npz"}, "no.npz is not a file"),
    ):
        with pytest.raises(UserError, match=message):
            generate(tmp_path / "out", Config(**wrong))
    assert not (tmp_path / "out").exists()
