"""The rasteriser and the light, on meshes of a few triangles."""

import numpy as np
import pytest

pytest.importorskip("numba", reason="numba is not installed")

from synthwild.mesh import blend, normals, raster, shade


def square(depth: float) -> np.ndarray:
    return np.array([[2, 8, depth], [8, 8, depth], [8, 2, depth], [2, 2, depth]], np.float32)


FRONT = np.array([[0, 1, 2], [0, 2, 3]])


def test_nearer_triangles_hide_others_and_back_faces_are_not_drawn() -> None:
    points = np.concatenate([square(1.0), square(2.0) + np.float32([3, 0, 0]), square(9.0)])
    colours = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    triangles = np.concatenate([FRONT + 4, FRONT, FRONT[:, ::-1] + 8])
    picture = raster(points, colours, triangles, 12, 14)
    assert picture[5, 3].tolist() == pytest.approx([1, 0, 0, 1])
    assert picture[5, 7].tolist() == pytest.approx([0, 1, 0, 1])
    assert picture[5, 13].tolist() == [0, 0, 0, 0]
    assert picture[..., 2].max() == 0
    assert picture[..., 3].sum() == 7 * 7 + 3 * 7


def test_colours_are_interpolated_and_triangles_outside_are_clipped() -> None:
    points = square(0.0) * np.float32([3, 3, 1]) - np.float32([8, 8, 0])  # -2 to 16
    grey = ((points[:, :1] + 2) / 18).repeat(3, axis=1).astype(np.float32)
    picture = raster(points, grey, FRONT, 10, 10)
    assert picture[..., 3].min() == 1
    assert np.allclose(picture[4, :, 0], (np.arange(10) + 2) / 18, atol=1e-5)


def test_normals_point_outwards_and_light_from_there_is_brightest() -> None:
    points = square(0.0) * np.float32([1, -1, 1])  # y upwards
    found = normals(points, FRONT)
    assert np.allclose(found, [0, 0, 1])
    grey, none = np.full((4, 3), 0.2, np.float32), np.zeros(4, np.float32)
    dark, white = np.zeros(3), np.ones(3)
    lit = [shade(grey, found, np.array(key, float), white, dark, 0.2, none, 4) for key in ([0, 0, 1], [0, 0, -1])]
    assert np.allclose(lit[0], (0.2 * (0.16 + 1)) ** 0.5, atol=1e-4)
    assert (lit[1] < lit[0]).all()


def test_blend_is_the_weighted_sum() -> None:
    rng = np.random.default_rng(0)
    base, shapes = rng.normal(size=(5, 3)), rng.normal(size=(4, 5, 3))
    weights = np.array([0.0, 1.5, -0.5, 0.0])
    assert np.allclose(blend(base, shapes, weights), base + np.tensordot(weights, shapes, 1))
