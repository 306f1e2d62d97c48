"""Key-region views: the published ratios, landmarks, and the way from a row to them."""

import numpy as np
import pytest
import torch

from checkpoints.errors import UserError
from checkpoints.framing import OURS
from preprocessing.align import encode_jpeg
from preprocessing.faces import FacesStore
from preprocessing.views import ALIGNED, REGIONS, VIEWS, StillFrames, check_views, cut, face_views, row_views
from preprocessing.write_faces import finish_store, write_shard
from wildaffect.training.images import decode, resize


def coordinates(size=100):
    """A picture whose first channel is x and second is y."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)]).to(torch.uint8)


def test_eyes_above_mouth_at_the_published_ratios():
    view = cut(coordinates(), "eyes_mouth")
    assert view.shape == (3, 40, 60)
    assert view[0, 0].tolist() == list(range(20, 80))
    assert view[1, :, 0].tolist() == [*range(35, 55), *range(70, 90)]


@pytest.mark.parametrize("region", REGIONS)
def test_single_regions(region):
    x1, x2, y1, y2 = (round(100 * share) for share in REGIONS[region])
    assert torch.equal(cut(coordinates(), region), coordinates()[:, y1:y2, x1:x2])


def test_full_is_the_picture():
    picture = coordinates()
    assert cut(picture, "full") is picture


def test_aligned_places_are_those_of_preprocessing():
    np.testing.assert_allclose((OURS.template(100) + 0.5) / 100, ALIGNED, atol=1e-4)


@pytest.mark.parametrize("view", [view for view in VIEWS if view.endswith("_landmarks")])
def test_landmarks_of_an_aligned_face_give_the_fixed_view(view):
    picture = coordinates(200)
    by_landmarks = cut(picture, view, OURS.template(200))
    fixed = cut(picture, view.removesuffix("_landmarks"))
    assert by_landmarks.shape == fixed.shape
    assert (by_landmarks.int() - fixed.int()).abs().max() <= 1
    assert torch.equal(cut(picture, view), fixed)  # nothing known: taken to be aligned


@pytest.mark.parametrize("angle", [0.0, 0.3, -0.5])
def test_landmarks_follow_a_turned_and_smaller_face(angle):
    """Turning and shrinking the landmarks moves every point of the cut accordingly."""
    size = 200
    turn = 0.6 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([100.0, 100.0])
    points = (OURS.template(size) - centre) @ turn.T + centre
    fixed, moved = (cut(coordinates(size), "eyes_mouth_landmarks", p) for p in (OURS.template(size), points))
    wanted = (fixed[:2].double().numpy().reshape(2, -1).T - centre) @ turn.T + centre
    np.testing.assert_allclose(moved[:2].double().numpy().reshape(2, -1).T, wanted, atol=1.6)


def test_store_gives_landmarks_of_the_aligned_picture(tmp_path):
    """Landmarks of a face that is turned and far away in the source, as points in its aligned picture."""
    source = (OURS.template(112) @ np.array([[3, 1], [-1, 3]]) + (500, 70)).astype(np.float32)
    row = {"video": "a", "subject": "", "frame": 1, "time_s": 0.0, "image": b"x"}
    write_shard(tmp_path, "a", [row | {"landmarks": source.ravel().tolist()}, row | {"frame": 2}])
    finish_store(tmp_path, made_by="test", config={}, image_size=112, problems=[])
    store = FacesStore(tmp_path)
    np.testing.assert_allclose(store.picture_landmarks(0), OURS.template(112), atol=1e-3)
    assert store.picture_landmarks(1) is None


@pytest.fixture
def store(tmp_path):
    """Four rows: a face, a face with its landmarks elsewhere, a picture that cannot be decoded, no picture."""
    picture = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    # An asymmetric change, so that alignment cannot undo it.
    points = OURS.template(112) + np.array([[4, 9], [-3, 2], [0, 0], [5, -6], [2, 7]])
    rows = [
        {"image": encode_jpeg(picture), "landmarks": OURS.template(112).ravel().tolist()},
        {"image": encode_jpeg(picture), "landmarks": points.ravel().tolist()},
        {"image": b"nonsense", "landmarks": None},
        {"image": None},
    ]
    named = [{"video": "a", "subject": "left", "frame": 7 + k, "time_s": 0.0} | row for k, row in enumerate(rows)]
    write_shard(tmp_path, "a", named)
    finish_store(tmp_path, made_by="test", config={}, image_size=112, problems=[])
    return FacesStore(tmp_path)


def test_a_rows_views_are_cut_by_its_own_landmarks(store):
    views = ("full", "eyes", "eyes_landmarks")
    full, eyes, turned = row_views(store, 1, views)
    assert torch.equal(full, decode(store.jpeg(1))) and torch.equal(eyes, cut(full, "eyes"))
    assert torch.equal(turned, cut(full, "eyes_landmarks", store.picture_landmarks(1)))
    assert not torch.equal(turned, eyes)
    streamed = [face_views(jpeg, views, points) for jpeg, points in store.pictures(0, 2)]
    for row, found in enumerate(streamed):
        assert all(map(torch.equal, found, row_views(store, row, views)))
    with pytest.raises(RuntimeError):
        row_views(store, 2)
    with pytest.raises(RuntimeError, match="empty"):
        row_views(store, 3)


def test_still_frames(store, capsys):
    stills = StillFrames(store, ["full", "eyes_landmarks"], 40)
    batch = stills.__getitems__([1, 2, 0])
    assert batch["images"].shape == (3, 2, 3, 40, 40) and batch["images"].dtype == torch.uint8
    assert batch["readable"].tolist() == [True, False, True] and not batch["images"][1].any()
    wanted = [resize(view, 40) for view in row_views(store, 1, stills.views)]
    assert torch.equal(batch["images"][0], torch.stack(wanted))
    assert f"skipped a bad picture: {store.path}: video a left, frame 9: " in capsys.readouterr().out


def test_landmark_views_need_landmarks(store, tmp_path):
    check_views(store, ["full", "eyes_landmarks"])
    write_shard(tmp_path / "b", "b", [{"video": "b", "subject": "", "frame": 1, "time_s": 0.0, "image": b"x"}])
    finish_store(tmp_path / "b", made_by="test", config={}, image_size=112, problems=[])
    check_views(FacesStore(tmp_path / "b"), ["eyes"])
    with pytest.raises(UserError, match="use --view eyes, or run preprocessing without --crops"):
        check_views(FacesStore(tmp_path / "b"), ["full", "eyes_landmarks"])
