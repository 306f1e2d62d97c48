"""Single pictures are searched with room around them, and what is found is told in pixels of the picture."""

import cv2
import numpy as np
import pytest

from preprocessing.close_up import ROOM, SIDE, WHOLE, find_in_pictures, widen
from preprocessing.detect import Faces
from preprocessing.search import Detect, Refine


def face(box, score=0.9):
    x1, y1, x2, y2 = box
    points = [[x1, y1], [x2, y1], [(x1 + x2) / 2, (y1 + y2) / 2], [x1, y2], [x2, y2]]
    return Faces(np.array([box], np.float32), np.array([points], np.float32), np.array([score], np.float32))


def answered(pictures, detect, refine=None):
    """Run the search with given answers."""
    work = find_in_pictures(pictures)
    request = next(work)
    try:
        assert isinstance(request, Detect)
        request = work.send([detect(image) for image in request.images])
        assert isinstance(request, Refine)
        work.send(Faces.join([refine(image, box) for image, box in zip(request.images, request.boxes, strict=True)]))
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a third request")


@pytest.mark.parametrize(("height", "width"), [(48, 48), (40, 60), (300, 200)])
def test_a_mark_is_found_where_it_is(height, width):
    picture = np.zeros((height, width, 3), np.uint8)
    picture[10:14, 20:26] = 255

    def mark(image):
        rows, columns = np.nonzero(image[..., 0] > 127)
        return face((columns.min(), rows.min(), columns.max(), rows.max()))

    (found,) = answered([picture], mark)
    assert found.boxes[0] == pytest.approx([20, 10, 25, 13], abs=0.6)
    assert found.landmarks[0, 0] == pytest.approx(found.boxes[0, :2])


def test_small_pictures_are_enlarged_and_edges_are_repeated():
    picture = np.full((48, 24, 3), 200, np.uint8)
    wide = widen(picture)
    room = round(ROOM * SIDE)
    assert wide.image.shape == (SIDE + 2 * room, SIDE // 2 + 2 * room, 3)
    assert (wide.image == 200).all()
    assert widen(np.zeros((200, 100, 3), np.uint8)).scale == 1


@pytest.mark.parametrize(("score", "kept"), [(WHOLE + 0.01, 1), (WHOLE - 0.01, 0)])
def test_a_face_may_fill_the_picture_if_the_detector_agrees(score, kept):
    pictures = [cv2.randu(np.zeros((96, 96, 3), np.uint8), 0, 255) for _ in range(2)]
    # 1.2 times the picture's side, 0.12 of it to the right of its centre and above it: beyond the picture's edge.
    best = pytest.approx([1.92, -21.12, 117.12, 94.08], abs=0.01)
    room = round(ROOM * 96)

    def refine(image, box):
        return face(box, score if box - room == best else 0.1)

    found = answered(pictures, lambda image: Faces.none(), refine)
    assert [len(faces) for faces in found] == [kept, kept]
    for faces in found:
        assert [box.tolist() == best for box in faces.boxes] == [True] * kept
