import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoints.framing import ARCFACE, ARCFACE_112, OURS
from preprocessing.align import align, decode_jpeg, encode_jpeg, similarity


def move(points, angle, scale, shift):
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ rotation.T + shift


@given(
    st.floats(-3, 3),
    st.floats(0.05, 20),
    st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
)
def test_similarity_undoes_a_similarity(angle, scale, shift):
    target = OURS.template(112)
    source = move(target, angle, scale, shift)
    matrix = similarity(source, target)
    assert np.allclose(source @ matrix[:, :2].T + matrix[:, 2], target, atol=1e-6)


def test_similarity_is_the_least_squares_one_of_umeyama():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(2, 5, 2)) * 10
    # The solution by singular value decomposition (Umeyama 1991), without reflection.
    a, b = source - source.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a / 5)
    flip = np.diag([1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ flip @ vt
    scale = np.trace(np.diag(s) @ flip) / (a**2).sum() * 5
    matrix = similarity(source, target)
    assert np.allclose(matrix[:, :2], scale * rotation)
    assert np.allclose(matrix[:, 2], target.mean(0) - scale * rotation @ source.mean(0))


def test_coinciding_points_are_an_error():
    with pytest.raises(ValueError, match="coincide"):
        similarity(np.full((5, 2), 7.0), OURS.template(112))


def test_template_is_centred_and_scales():
    assert np.allclose(ARCFACE.template(112), ARCFACE_112)
    assert np.allclose((OURS.template(224) + 0.5) / 2 - 0.5, OURS.template(112))
    assert np.allclose(OURS.template(112) - 55.5, 0.8 * (ARCFACE_112 - 55.5))


def spots(size, points, radius):
    """A picture with a smooth bright spot at each point."""
    y, x = np.mgrid[:size, :size]
    distance = np.min([np.hypot(x - px, y - py) for px, py in points], axis=0)
    return np.repeat((255 * np.exp(-((distance / radius) ** 2)))[:, :, None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("scale", [1.3, 2.0, 3.7, 8.0])
@pytest.mark.parametrize("size", [112, 224])
def test_landmarks_land_on_the_template(scale, size):
    """Also if the face is shrunk in two steps, where an error of half a pixel would show."""
    places = move(OURS.template(112) - 56, 0.3, scale, (560, 540))
    aligned = align(spots(1100, places, 2.5 * scale * 112 / size), places, size)
    for x, y in OURS.template(size):
        window = aligned[round(y) - 5 : round(y) + 6, round(x) - 5 : round(x) + 6, 0].astype(float)
        rows, columns = np.mgrid[-5:6, -5:6]
        centre = np.array([(window * columns).sum(), (window * rows).sum()]) / window.sum()
        assert np.abs(centre + np.round((x, y)) - (x, y)).max() < 0.25


def test_shrinking_does_not_alias():
    image = np.random.default_rng(0).integers(0, 256, (1600, 1600, 3), np.uint8)
    places = move(OURS.template(112) - 56, 0.2, 10.0, (800, 800))
    assert align(image, places, 112).std() < 15  # area averaging of 100 pixels; bilinear alone keeps about 50


def test_beyond_the_border_the_border_is_repeated():
    image = np.full((100, 100, 3), 80, np.uint8)
    places = OURS.template(112) - 60
    assert (align(image, places, 112) == 80).all()


def test_jpeg_keeps_colours():
    image = np.zeros((112, 112, 3), np.uint8)
    image[:, :56] = (200, 40, 90)
    assert np.abs(decode_jpeg(encode_jpeg(image)).astype(int) - image)[:, 8:48].max() < 8
