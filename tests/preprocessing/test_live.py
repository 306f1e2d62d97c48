import numpy as np
import pytest

from checkpoints.framing import OURS
from preprocessing.detect import Faces
from preprocessing.live import LiveFaces

SIZE = 40


class Squares:
    """Finds squares of one colour each, anywhere in a full search, or near a box."""

    def __init__(self):
        self.searches = self.refinements = 0

    def detect(self, images):
        self.searches += len(images)
        return [
            Faces.join([self._face(image, value) for value in np.unique(image[..., 0]) if value]) for image in images
        ]

    def refine(self, images, boxes):
        self.refinements += len(images)
        found = []
        for image, (x1, y1, x2, y2) in zip(images, boxes.astype(int), strict=True):
            inside = image[max(y1, 0) : y2, max(x1, 0) : x2, 0]
            value = inside.max(initial=0)
            nobody = Faces(np.zeros((1, 4), np.float32), np.zeros((1, 5, 2), np.float32), np.zeros(1, np.float32))
            found.append(self._face(image, value) if value else nobody)
        return Faces.join(found)

    def _face(self, image, value):
        rows, columns = np.nonzero(image[..., 0] == value)
        x1, y1, x2, y2 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        shape = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
        points = np.array([x1, y1]) + shape * np.array([x2 - x1, y2 - y1])
        box = np.array([[x1, y1, x2, y2]], np.float32)
        return Faces(box, points[None].astype(np.float32), np.array([0.99], np.float32))


def picture(*people):
    """A picture with a patterned square for each (value, x)."""
    image = np.zeros((100, 300, 3), np.uint8)
    image[..., 1:] = 30
    for value, x in people:
        pattern = np.random.default_rng(value).integers(0, 255, (SIZE // 4, SIZE // 4, 2), np.uint8)
        image[30 : 30 + SIZE, x : x + SIZE, 1:] = np.kron(pattern, np.ones((4, 4, 1), np.uint8))
        image[30 : 30 + SIZE, x : x + SIZE, 0] = value
    return image


@pytest.fixture
def live():
    return LiveFaces(Squares(), 112, OURS)


def names(faces):
    return sorted(face.subject for face in faces)


def test_a_face_is_searched_once_and_then_followed(live):
    for number in range(15):
        (face,) = live.step(picture((100, 50 + 2 * number)))
        assert face.subject == "" and face.box[0] == 50 + 2 * number and face.score > 0.9
        assert np.abs((face.landmarks - OURS.template(112)).mean(0)).max() < 1 and face.jpeg.startswith(b"\xff\xd8")
    assert live.detector.searches == 1 and live.detector.refinements == 14


def test_people_keep_their_names_when_they_come_back(live):
    for _ in range(17):
        live.step(picture((100, 50)))
    for _ in range(20):
        both = live.step(picture((100, 50), (180, 200)))
    assert names(both) == ["", "2"]
    for _ in range(30):
        alone = live.step(picture((180, 200)))
    assert names(alone) == ["2"]
    for _ in range(20):
        both = live.step(picture((100, 50), (180, 200)))
    assert names(both) == ["", "2"] and {f.subject: f.box[0] for f in both} == {"": 50, "2": 200}


def test_a_lost_face_is_searched_at_once_and_an_empty_picture_four_times_as_often(live):
    live.step(picture((100, 50)))
    (moved,) = live.step(picture((100, 250)))  # further than a box away
    assert moved.box[0] == 250 and live.detector.searches == 2
    for _ in range(17):
        assert live.step(picture()) == []
    assert live.detector.searches == 2 + 1 + 4


@pytest.mark.parametrize(("likeness", "people", "tracks"), [(2.0, 3, 1), (-2.0, 1, 2)])
def test_memory_is_bounded(live, monkeypatch, likeness, people, tracks):
    """Whether nobody is ever recognised, or everybody is taken for the same person."""
    monkeypatch.setattr("preprocessing.live.PEOPLE", 3)
    monkeypatch.setattr("preprocessing.live.TRACKS", 2)
    for name in ("SAME_PERSON", "SAME_PLACE"):
        monkeypatch.setattr(f"preprocessing.tracks.{name}", likeness)
    seen = []
    for number in range(6):
        for _ in range(4):
            seen += names(live.step(picture((number + 100, 20 + 60 * (number % 4)))))
        for _ in range(12):
            live.step(picture())
    assert [len(live.people), max(map(len, live.people.values()))] == [people, tracks]
    assert seen[-1] == ("6" if people > 1 else "")
    assert not live._tracks and not live._tracker.tracks
