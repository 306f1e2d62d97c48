"""Key-region views: the published ratios, and landmarks."""

import numpy as np
import pytest
import torch

from preprocessing.align import template
from preprocessing.faces import FacesStore, finish_store, write_shard
from preprocessing.views import ALIGNED, REGIONS, VIEWS, cut


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
    np.testing.assert_allclose((template(100) + 0.5) / 100, ALIGNED, atol=1e-4)


@pytest.mark.parametrize("view", [view for view in VIEWS if view.endswith("_landmarks")])
def test_landmarks_of_an_aligned_face_give_the_fixed_view(view):
    picture = coordinates(200)
    by_landmarks = cut(picture, view, template(200))
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
    points = (template(size) - centre) @ turn.T + centre
    fixed, moved = (cut(coordinates(size), "eyes_mouth_landmarks", p) for p in (template(size), points))
    wanted = (fixed[:2].double().numpy().reshape(2, -1).T - centre) @ turn.T + centre
    np.testing.assert_allclose(moved[:2].double().numpy().reshape(2, -1).T, wanted, atol=1.6)


def test_store_gives_landmarks_of_the_aligned_picture(tmp_path):
    """Landmarks of a face that is turned and far away in the source, as places in its picture."""
    source = (template(112) @ np.array([[3, 1], [-1, 3]]) + (500, 70)).astype(np.float32)
    row = {"video": "a", "subject": "", "frame": 1, "time_s": 0.0, "image": b"x"}
    write_shard(tmp_path, "a", [row | {"landmarks": source.ravel().tolist()}, row | {"frame": 2}])
    finish_store(tmp_path, made_by="test", config={}, image_size=112, problems=[])
    store = FacesStore(tmp_path)
    np.testing.assert_allclose(store.picture_landmarks(0), template(112), atol=1e-3)
    assert store.picture_landmarks(1) is None
