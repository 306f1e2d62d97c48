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
    again = stills.make_chunk(model, None, 0, 0)
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


def write_skins(path: Path, vertices: int, **changed: np.ndarray) -> Path:
    """Two people: one even skin, one that is dark below the nose; and a third who is held out."""
    rows = np.array([[0.3] * vertices, [0.2] * vertices, [9.0] * vertices])
    rows[1, : vertices // 2] = 0.02
    arrays = {"keys": np.array(["even", "dark", "kept"]), "c": rows.astype(np.float16), "held": np.array(["kept"])}
    np.savez(path, **arrays | {"skin": np.array([0.3, 0.2, 3.0])} | changed)
    return path


def test_skins_of_real_people_replace_painted_skin(model: Path, tmp_path: Path) -> None:
    vertices = len(anatomy_of(model).at)
    skins = write_skins(tmp_path / "skins.npz", vertices)
    anatomy = anatomy_of(model, skins)
    assert anatomy.skins is not None
    assert anatomy.skins.shape == (2, vertices)
    assert anatomy.skins[0] == pytest.approx(1, abs=1e-3)
    faces = [random_face(np.random.default_rng(seed), anatomy) for seed in range(12)]
    below, above = np.arange(40, 400), np.arange(vertices // 2 + 40, vertices // 2 + 400)
    shares = [face.surface.albedo[below].mean() / face.surface.albedo[above].mean() for face in faces]
    assert min(shares) < 0.4  # somebody with the dark skin
    assert max(shares) > 0.7
    config = Config(out=tmp_path / "a", faces="rendered", model=model, skins=skins, stills=2)
    generate(config.out, config)
    assert read_json(config.out / "synthwild.json")["config"]["skins"]
    painted = stills.make_chunk(model, None, 0, 0)[0]["image"]["bytes"]
    assert pq.read_table(config.out / "stills.parquet")["image"][0].as_py()["bytes"] != painted


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"c": np.ones((3, 7))}, r"c \[3, 7\] and skin \[3\] do not fit 3 people"),
        ({"skin": np.zeros(3)}, "not positive and finite"),
        ({"held": np.array(["even", "dark", "kept"])}, "nobody who is not held out"),
    ],
)
def test_skins_that_do_not_fit_are_refused(
    model: Path, tmp_path: Path, changed: dict[str, np.ndarray], message: str
) -> None:
    skins = write_skins(tmp_path / "skins.npz", len(anatomy_of(model).at), **changed)
    with pytest.raises(UserError, match=message):
        anatomy_of(model, skins)


def test_file_without_skins_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a file of skins, it lacks keys, c, skin"):
        anatomy_of(model, model)
    (tmp_path / "text.npz").write_text("no skins")
    with pytest.raises(UserError, match="cannot be read as a file of skins"):
        anatomy_of(model, tmp_path / "text.npz")


def test_options_that_do_not_fit_are_refused(model: Path, tmp_path: Path) -> None:
    for wrong, message in (
        ({"faces": "rendered"}, "--model M.npz go together"),
        ({"model": model}, "--model M.npz go together"),
        ({"stills": 5}, "--stills 5"),
        ({"faces": "rendered", "model": tmp_path / "no.npz"}, "no.npz is not a file"),
        ({"skins": model}, "with --faces rendered"),
        ({"faces": "rendered", "model": model, "skins": tmp_path / "no.npz"}, "no.npz: expected a file"),
    ):
        with pytest.raises(UserError, match=message):
            generate(tmp_path / "out", Config(**wrong))
    assert not (tmp_path / "out").exists()
