import numpy as np
import pytest

from checkpoints.errors import UserError
from checkpoints.forms import checked
from checkpoints.framing import ARCFACE, ARCFACE_112, NAMED, OURS, UNKNOWN, Framing, FramingForm


@pytest.mark.parametrize("size", [112, 224])
@pytest.mark.parametrize(("framing", "margin"), [(OURS, 0.1), (ARCFACE, 0.0)])
def test_templates_are_arcfaces_with_a_margin(framing, margin, size):
    wanted = ((ARCFACE_112 + 0.5) / 112 * (1 - 2 * margin) + margin) * size - 0.5
    assert np.array_equal(framing.template(size), wanted)
    assert np.array_equal(Framing.from_dict(framing.as_dict()).template(size), wanted)


def test_measured_points_are_named_if_they_are_close_to_a_name():
    for framing in (OURS, ARCFACE):
        assert Framing.of_points(np.array(framing.points) + 0.02) == framing
    moved = Framing.of_points(np.array(ARCFACE.points) + np.array([0, 0.1234]))
    assert moved.name == "measured" and moved.points[0] == (0.35, 0.59)


def test_what_is_no_framing_is_refused():
    assert all(Framing.from_dict(framing.as_dict()) == framing for framing in NAMED.values())
    for content in (None, {}, {"name": "a"}, {"name": "a", "points": [[1, 2]]}, {"name": "a", "points": [1] * 5}):
        with pytest.raises(UserError, match=r"a\.json is damaged"):
            checked(content, FramingForm, "a.json")


def test_identities_differ_where_points_do():
    close = Framing("measured", tuple((x + 1e-5, y) for x, y in ARCFACE.points))
    assert close.identity == ARCFACE.identity != OURS.identity
    assert UNKNOWN.identity == "unknown" and not UNKNOWN.is_known


def test_faces_are_aligned_to_a_known_framing_or_to_ours():
    measured = Framing("measured", ARCFACE.points)
    assert [f.for_alignment for f in (OURS, ARCFACE, measured, UNKNOWN)] == [OURS, ARCFACE, measured, OURS]
