"""The search is tested on known faces: the detector reads them from a list instead of a picture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.detect import Faces, iou
from preprocessing.search import Detect, ShotDetector, find_faces, match


def faces_at(boxes, scores=None):
    boxes = np.float32(boxes).reshape(-1, 4)
    side = boxes[:, 2:] - boxes[:, :2]
    places = np.float32([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
    landmarks = boxes[:, None, :2] + places * side[:, None]
    return Faces(boxes, landmarks, np.ones(len(boxes), np.float32) if scores is None else np.float32(scores))


class Truth:
    """Answers requests from lists of boxes; a picture holds its own number. Refinement needs some overlap."""

    def __init__(self, boxes):
        self.boxes = boxes
        self.searched: list[int] = []
        self.refined = 0

    def run(self, search):
        try:
            request = next(search)
            while True:
                request = search.send(self.answer(request))
        except StopIteration as stop:
            return stop.value

    def answer(self, request):
        numbers = [int(image[0, 0, 0]) for image in request.images]
        if isinstance(request, Detect):
            self.searched += numbers
            return [faces_at(self.boxes[number]) for number in numbers]
        self.refined += len(numbers)
        found = []
        for number, box in zip(numbers, request.boxes, strict=True):
            truth = faces_at(self.boxes[number])
            overlap = iou(box[None], truth.boxes)[0]
            if len(overlap) and overlap.max() > 0.4:
                found.append(truth[[int(overlap.argmax())]])
            else:
                found.append(faces_at([box], [0.1]))
        return Faces.join(found)


def images(count):
    return [np.full((4, 4, 3), number, np.uint8) for number in range(count)]


def box_at(x, y, size=40):
    return [x, y, x + size, y + size]


def same(found, truth):
    return all(
        len(faces) == len(boxes) and (not boxes or (iou(np.float32(boxes), faces.boxes).max(1) > 0.99).all())
        for faces, boxes in zip(found, truth, strict=True)
    )


def test_a_steady_face_is_searched_rarely():
    truth = [[box_at(100 + 2 * k, 50)] for k in range(65)]
    detector = Truth(truth)
    assert same(detector.run(find_faces(images(65), [])), truth)
    assert detector.searched == [0, 16, 32, 48, 64]
    assert detector.refined == 60


def test_a_known_first_frame_is_not_searched_again():
    truth = [[box_at(100, 50)] for _ in range(17)]
    detector = Truth(truth)
    detector.run(find_faces(images(17), [], faces_at(truth[0])))
    assert detector.searched == [16]


def test_a_face_that_comes_and_goes_is_found_in_every_frame():
    truth = [[box_at(100, 50)] if 5 <= k < 23 else [] for k in range(49)]
    detector = Truth(truth)
    assert same(detector.run(find_faces(images(49), [])), truth)
    assert len(detector.searched) < 20


def test_fast_movement_is_followed_by_searching_more():
    truth = [[box_at(20 + 25 * k, 50)] for k in range(33)]
    detector = Truth(truth)
    assert same(detector.run(find_faces(images(33), [])), truth)


def test_both_sides_of_a_cut_are_searched():
    truth = [[box_at(100, 50)] if k < 10 else [box_at(300, 80, 60), box_at(20, 10)] for k in range(30)]
    detector = Truth(truth)
    assert same(detector.run(find_faces(images(30), [10])), truth)
    assert {9, 10} <= set(detector.searched)
    assert len(detector.searched) <= 5


def test_two_faces_that_cross():
    truth = [[box_at(50 + 6 * k, 50), box_at(300 - 6 * k, 150)] for k in range(33)]
    assert same(Truth(truth).run(find_faces(images(33), [])), truth)


@settings(max_examples=40)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.lists(st.integers(1, 39), max_size=3, unique=True))
def test_any_coming_and_going_between_searched_frames_is_consistent(visible, cuts):
    """A face is never reported in a frame where it is not, and every frame has a result."""
    truth = [[box_at(100, 50)] if seen else [] for seen in visible]
    cuts = sorted(cut for cut in cuts if cut < len(visible))
    detector = Truth(truth)
    found = detector.run(find_faces(images(len(visible)), cuts))
    assert len(found) == len(visible)
    assert all(len(faces) <= len(boxes) for faces, boxes in zip(found, truth, strict=True))
    assert all(len(found[number]) == len(truth[number]) for number in detector.searched)
    assert len(detector.searched) == len(set(detector.searched))


def test_match_prefers_the_nearer_and_needs_a_like_size():
    a = np.float32([box_at(0, 0), box_at(100, 0)])
    assert sorted(match(a, np.float32([box_at(104, 0), box_at(6, 0)]))) == [(0, 1), (1, 0)]
    assert match(a, np.float32([box_at(300, 0)])) == []
    assert match(a[:1], np.float32([box_at(0, 0, 100)])) == []
    assert match(a[:0], a) == []


def test_match_by_appearance_when_position_is_ambiguous():
    a, b = np.float32([box_at(0, 0), box_at(20, 0)]), np.float32([box_at(10, 0), box_at(11, 0)])
    assert sorted(match(a, b, np.float32([[0.1, 0.9], [0.9, 0.1]]))) == [(0, 1), (1, 0)]


def noise(seed, brightness=1.0):
    picture = np.random.default_rng(seed).integers(0, 200, (9, 12, 3), np.uint8)
    return (np.kron(picture, np.ones((10, 10, 1))) * brightness).astype(np.uint8)


@pytest.mark.parametrize("brightness", [1.0, 0.1])
def test_a_cut_is_found_in_light_and_dark(brightness):
    shots = ShotDetector()
    shown = [noise(1, brightness)] * 5 + [noise(2, brightness)] * 5
    assert [k for k, image in enumerate(shown) if shots.is_cut(image)] == [5]


def test_a_flash_and_a_fade_are_no_cuts():
    shots = ShotDetector()
    shown = [noise(1), noise(1, 0.4), noise(1), *(noise(1, b) for b in (0.7, 0.4, 0.1, 0.0, 0.0, 0.2, 0.9))]
    assert not any(shots.is_cut(image) for image in shown)


def test_fast_pans_are_no_cuts():
    shots = ShotDetector()
    wide = np.concatenate([noise(k) for k in range(8)], axis=1)
    places = np.cumsum([0, 0, *range(1, 20, 2), *[20] * 30])
    shown = [wide[:, x : x + 120] for x in places]
    assert not any(shots.is_cut(image) for image in shown)


def test_another_picture_size_is_a_cut():
    shots = ShotDetector()
    assert not shots.is_cut(noise(1))
    assert shots.is_cut(noise(1)[:, :100])
