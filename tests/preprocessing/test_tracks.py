import numpy as np
import pytest

from preprocessing.detect import Faces
from preprocessing.tracks import MAX_GAP, Tracker, describe, group_subjects, name_subjects, portray
from tests.preprocessing.test_search import box_at, faces_at

SHAPE = (200, 400, 3)


def person(seed):
    """A picture that stands for one person's aligned face."""
    coarse = np.random.default_rng(seed).integers(0, 255, (7, 7, 3), np.uint8)
    return np.kron(coarse, np.ones((16, 16, 1), np.uint8))


class Scene:
    """Feeds a tracker and collects its results as {track: {frame: Seen}}."""

    def __init__(self):
        self.tracker = Tracker()
        self.seen = {}

    def show(self, frame, people):
        """`people`: (box, who) pairs."""
        faces = faces_at([box for box, _ in people]) if people else Faces.none()
        for seen in self.tracker.step(frame, SHAPE, faces, [person(who) for _, who in people]):
            self.seen.setdefault(seen.track, {})[seen.frame] = seen

    def frames(self, track):
        return sorted(self.seen[track])


def test_a_moving_face_is_one_track():
    scene = Scene()
    for k in range(1, 30):
        scene.show(k, [(box_at(50 + 8 * k, 40), 1)])
    assert scene.frames(0) == list(range(1, 30))
    assert len(scene.seen) == 1


def test_a_short_gap_is_bridged_on_a_straight_line():
    scene = Scene()
    scene.show(1, [(box_at(100, 40), 1)])
    for k in range(2, 5):
        scene.show(k, [])
    scene.show(5, [(box_at(120, 44), 1)])
    assert scene.frames(0) == [1, 2, 3, 4, 5]
    middle = scene.seen[0][3]
    assert middle.interpolated
    assert middle.crop is None
    assert np.isnan(middle.score)
    assert np.allclose(middle.box, box_at(110, 42))
    assert not scene.seen[0][5].interpolated


def test_a_long_gap_ends_a_track():
    scene = Scene()
    scene.show(1, [(box_at(100, 40), 1)])
    scene.show(2 + MAX_GAP, [(box_at(100, 40), 1)])
    assert scene.frames(0) == list(range(1, 3 + MAX_GAP))
    scene.show(4 + 2 * MAX_GAP, [(box_at(100, 40), 1)])
    assert scene.frames(1) == [4 + 2 * MAX_GAP]


def test_a_cut_ends_tracks():
    scene = Scene()
    scene.show(1, [(box_at(100, 40), 1)])
    scene.tracker.cut()
    scene.show(2, [(box_at(100, 40), 2)])
    assert sorted(scene.seen) == [0, 1]


def test_two_people_who_cross_keep_their_tracks():
    scene = Scene()
    for k in range(1, 41):
        left, right = (box_at(20 + 6 * k, 40), 1), (box_at(260 - 6 * k, 46), 2)
        # While one hides the other only the nearer is found.
        scene.show(k, [right] if 18 <= k <= 22 else [left, right])
    who = {
        track: {seen.crop.tobytes() for seen in frames.values() if seen.crop is not None}
        for track, frames in scene.seen.items()
    }
    assert who == {0: {person(1).tobytes()}, 1: {person(2).tobytes()}}
    assert scene.frames(0) == scene.frames(1) == list(range(1, 41))


def test_likeness():
    dimmed = (person(1) * 0.6 + 10).astype(np.uint8)
    for look in (describe, portray):
        assert look(person(1)) @ look(person(1)) == pytest.approx(1, abs=1e-5)
        assert look(person(1)) @ look(person(2)) < 0.5
    assert describe(person(1)) @ describe(dimmed) > 0.99
    assert np.isfinite(portray(np.zeros((112, 112, 3), np.uint8))).all()


def two_shots(second, third=None):
    """Person 1 alone, then after a cut `second` (and `third` to the right)."""
    scene = Scene()
    for k in range(1, 21):
        scene.show(k, [(box_at(100, 40), 1)])
    scene.tracker.cut()
    for k in range(21, 36):
        people = [(box_at(30, 40), second)] + ([(box_at(300, 40), third)] if third else [])
        scene.show(k, people)
    return scene.tracker.tracks


def test_a_person_seen_again_after_a_cut_is_one_subject():
    subjects = group_subjects(two_shots(1, 2), 35)
    assert [[track.number for track in subject] for subject in subjects] == [[0, 1], [2]]


def test_different_people_are_different_subjects():
    assert [len(subject) for subject in group_subjects(two_shots(2), 35)] == [1, 1]


def test_people_in_one_frame_are_never_one_subject():
    subjects = group_subjects(two_shots(1, 1), 35)
    assert len(subjects) == 2


def test_passing_false_alarms_are_left_out():
    scene = Scene()
    for k in range(1, 11):
        scene.show(k, [(box_at(100, 40), 1), *([(box_at(300, 100), 2)] if k in (3, 4) else [])])
    assert len(group_subjects(scene.tracker.tracks, 10)) == 1
    # In a video of two frames two frames are much.
    assert len(group_subjects(scene.tracker.tracks, 2)) == 2


def named(subjects, names):
    return {name: [track.number for track in tracks] for name, tracks in name_subjects(subjects, names).items()}


def test_names():
    pair = group_subjects(two_shots(2, 3), 35)  # track 0 in the middle first; then 1 at the left, 2 at the right
    assert named(pair, ()) == {"": [0], "2": [1], "3": [2]} or named(pair, ())[""] == [0]
    both = Scene()
    for k in range(1, 11):
        both.show(k, [(box_at(300, 40), 1), (box_at(30, 40), 2)])
    pair = group_subjects(both.tracker.tracks, 10)
    assert named(pair, ("left", "right")) == {"left": [1], "right": [0]}
    assert named(pair, ("", "right")) == {"": [1], "right": [0]}
    assert named(pair, ("", "left")) == {"": [0], "left": [1]}
    assert named([], ("left", "right")) == {"left": [], "right": []}
    assert named([], ("",)) == {"": []}
    assert named([], ()) == {"": []}


def test_the_place_of_the_only_person_decides_the_name():
    def alone(x):
        scene = Scene()
        for k in range(1, 11):
            scene.show(k, [(box_at(x, 40), 1)])
        return group_subjects(scene.tracker.tracks, 10)

    width = SHAPE[1]
    left, middle, right = (alone(share * width - 20) for share in (0.15, 0.48, 0.85))
    both = ("left", "right")
    assert named(left, both) == {"left": [0], "right": []}
    assert named(right, both) == {"left": [], "right": [0]}
    assert named(right, ("right",)) == named(middle, ("right",)) == {"right": [0]}
    assert named(middle, ("left",)) == {"left": [0]}
    assert named(left, ("right",)) == {"right": []}
    assert named(left, ("", "right")) == {"": [0], "right": []}
    assert named(right, ("", "right")) == {"": [], "right": [0]}


def test_a_single_named_subject_goes_on_in_shots_where_it_is_not_recognised():
    subjects = group_subjects(two_shots(2, 3), 35)
    assert named(subjects, ("",)) == {"": [0, 1]}
    assert set(name_subjects(subjects)) == {"", "2", "3"}
