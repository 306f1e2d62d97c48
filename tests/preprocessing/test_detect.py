import numpy as np
import pytest

from preprocessing.detect import Faces, iou, place, regress, square
from preprocessing.mtcnn import MTCNN, nms
from preprocessing.video import read_frames


@pytest.fixture(scope="module")
def pictures(synthwild_tiny):
    """Some frames with one and two drawn faces, and one without."""
    videos = sorted((synthwild_tiny / "release" / "videos").rglob("*.*"))[:4]
    frames = [[f.image for f in read_frames(video, print)][::20][:2] for video in videos]
    return [*(image for some in frames for image in some), np.zeros((160, 160, 3), np.uint8)]


@pytest.fixture(scope="module")
def detector():
    pytest.importorskip("facenet_pytorch")
    mtcnn = MTCNN()
    mtcnn.relative_face_size = 0
    return mtcnn


@pytest.fixture(scope="module")
def found(detector, pictures):
    return detector.detect(pictures)


def test_finds_what_the_library_finds(found, pictures):
    facenet = pytest.importorskip("facenet_pytorch")
    reference = facenet.MTCNN(keep_all=True)
    faces = 0
    for own, image in zip(found, pictures, strict=True):
        boxes, scores, landmarks = reference.detect(image, landmarks=True)
        for box, score, points in zip(
            boxes if boxes is not None else (), scores, landmarks if boxes is not None else (), strict=False
        ):
            if score < 0.95:
                continue
            faces += 1
            overlap = iou(np.float32(box)[None], own.boxes)[0]
            assert overlap.max() > 0.7
            eyes = np.linalg.norm(np.float32(points)[0] - np.float32(points)[1])
            assert np.linalg.norm(own.landmarks[overlap.argmax()] - np.float32(points), axis=1).mean() < 0.15 * eyes
    assert faces >= 8


def test_a_picture_without_a_face_has_none(found):
    assert len(found[-1]) == 0


def test_sizes_may_be_mixed_and_batches_do_not_matter(detector, pictures, found):
    wide = np.pad(pictures[0], ((0, 0), (0, 40), (0, 0)))
    together = detector.detect([pictures[1], wide, pictures[0]])
    assert len(together[1]) == len(found[0])
    assert np.allclose(together[0].boxes, found[1].boxes, atol=0.01)
    assert np.allclose(together[2].landmarks, found[0].landmarks, atol=0.01)


@pytest.mark.parametrize("shape", [(1, 1), (5, 400), (19, 19)])
def test_tiny_pictures_have_no_face(detector, shape):
    assert [len(faces) for faces in detector.detect([np.full((*shape, 3), 128, np.uint8)])] == [0]


def test_refining_a_moved_box_comes_back(detector, pictures, found):
    faces = found[0][:1]
    side = (faces.boxes[:, 2:] - faces.boxes[:, :2]).mean()
    moved = faces.boxes + np.float32([0.1, -0.08, 0.1, -0.08]) * side
    refined = detector.refine([pictures[0]], moved)
    assert refined.scores[0] > 0.9
    assert iou(refined.boxes, faces.boxes)[0, 0] > 0.8
    eyes = np.linalg.norm(faces.landmarks[0, 0] - faces.landmarks[0, 1])
    assert np.linalg.norm(refined.landmarks - faces.landmarks, axis=2).mean() < 0.1 * eyes


def test_refining_where_no_face_is_scores_low(detector):
    noise = np.random.default_rng(0).integers(0, 255, (160, 160, 3), np.uint8)
    boxes = np.float32([[40, 40, 100, 110], [-30, -30, 20, 20], [150, 150, 400, 400], [200, 200, 260, 260]])
    assert (detector.refine([noise] * 4, boxes).scores < 0.7).all()


def test_a_face_cut_by_the_border_keeps_its_landmarks(detector, pictures, found):
    """Beyond the border the networks see black; a crop pushed into the picture would displace the points."""
    faces = found[0][:1]
    cut = int(faces.landmarks[0, 3:, 1].max() + 2)  # just below the mouth
    refined = detector.refine([pictures[0][:cut]], faces.boxes)
    eyes = np.linalg.norm(faces.landmarks[0, 0] - faces.landmarks[0, 1])
    assert np.abs(refined.landmarks[0, :3] - faces.landmarks[0, :3]).max() < 0.15 * eyes


def test_refining_nothing(detector):
    assert len(detector.refine([], np.zeros((0, 4)))) == 0


def test_boxes():
    boxes = np.float32([[0, 0, 10, 20], [0, 0, 10, 10], [100, 0, 110, 10]])
    assert np.allclose(square(boxes)[0], [-5, 0, 15, 20])
    assert np.allclose(iou(boxes[:2], boxes), [[1, 0.5, 0], [0.5, 1, 0]])
    assert np.allclose(regress(boxes[:1], np.float32([[0.1, 0, -0.1, 0]])), [[1.1, 0, 8.9, 20]])
    points = np.float32([[0, 0.5, 1, 0, 1, 0, 0.5, 1, 1, 0]])
    assert np.allclose(place(boxes[1:2], points)[0, 1], [0.5 * 11 - 1, 0.5 * 11 - 1])


def test_nms_keeps_the_best_of_each_picture():
    boxes = np.float32([[0, 0, 10, 10], [1, 1, 11, 11], [0, 0, 10, 10], [50, 50, 60, 60]])
    keep = nms(boxes, np.float32([0.8, 0.9, 0.7, 0.6]), np.array([0, 0, 1, 0]), 0.5)
    assert keep.tolist() == [1, 2, 3]


def test_faces_can_be_chosen_and_joined():
    faces = Faces(np.ones((3, 4), np.float32), np.ones((3, 5, 2), np.float32), np.float32([0.1, 0.9, 0.5]))
    assert len(faces[faces.scores > 0.3]) == 2
    assert len(Faces.join([faces, faces[1:], Faces.none()])) == 5
    assert len(Faces.join([])) == 0
