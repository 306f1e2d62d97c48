"""One shard, with a detector that knows where the faces are."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from preprocessing.align import encode_jpeg
from preprocessing.detect import Faces
from preprocessing.faces import FacesStore
from preprocessing.items import Item
from preprocessing.search import Detect, Refine
from preprocessing.shard import Settings, chunks, find_together, give_up, make_shard, run_together
from preprocessing.sources import SHARD_BYTES, find_items, make_groups
from preprocessing.video import Frame
from preprocessing.write_faces import finish_store
from tests.preprocessing.movies import write_movie
from tests.preprocessing.test_search import box_at, faces_at


class Detector:
    """Sees a face in every bright square; counts its calls."""

    def __init__(self):
        self.batches = []

    def detect(self, images):
        self.batches.append(len(images))
        return [self._faces(image) for image in images]

    def refine(self, images, boxes):
        self.batches.append(len(images))
        found = []
        for image, box in zip(images, boxes, strict=True):
            faces = self._faces(image)
            near = [k for k in range(len(faces)) if np.abs(faces.boxes[k] - box).max() < 15]
            found.append(faces[near[:1]] if near else faces_at([box], [0.0]))
        return Faces.join(found)

    @staticmethod
    def _faces(image):
        top = (len(image) - 120) // 2  # room around a picture
        columns = np.flatnonzero(image[top + 60].mean(1) > 150)
        groups = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1) if len(columns) else []
        return faces_at([box_at(int(group[0]), top + 40) for group in groups if len(group) > 20])


def scene(*places):
    image = np.full((120, 240, 3), 30, np.uint8)
    image[:30, ::2] = image[90:, :120] = 240  # a background that stays when a face goes: no cut
    for x in places:
        image[40:80, x : x + 40] = (230, 200, 180)
    return image


def store_of(tmp_path, source, crops=False, detector=None):
    items, _ = find_items([source], crops=crops)
    logs = [
        make_shard(tmp_path / "store", group, Settings(112, crops), None if crops else detector or Detector())
        for group in make_groups(items)
    ]
    finish_store(tmp_path / "store", made_by="test", config={}, image_size=112, problems=[])
    return FacesStore(tmp_path / "store"), logs


def test_the_main_subject_has_every_frame_and_others_theirs(tmp_path):
    frames = [scene(20 + k) if k < 40 else scene(20 + k, 180) if k < 60 else scene() for k in range(80)]
    path = write_movie(tmp_path / "a.mp4", frames, options={"crf": "10"})
    store, logs = store_of(tmp_path, path)
    main, other = store.sequences()
    assert (main.id, main.first_frame, main.length) == ("a", 1, 80)
    assert (other.id, other.first_frame, other.length) == ("a_2", 41, 20)
    assert store.valid[:80].tolist() == [True] * 60 + [False] * 20
    assert logs[0]["frames"] == 80
    assert logs[0]["faces"] == 80
    assert [entry["label"] for entry in logs[0]["no_face"]] == ["a 61", "a 62", "a 64", "a 68"]


def test_a_video_longer_than_a_chunk_is_searched_as_one(tmp_path):
    detector = Detector()
    path = write_movie(tmp_path / "a.mp4", [scene(20 + k // 4) for k in range(150)], options={"crf": "10"})
    store, _ = store_of(tmp_path, path, detector=detector)
    assert [s.id for s in store.sequences()] == ["a"]
    assert store.valid.all()
    # The first frame, then every 16th, and the last of the 150.
    assert sum(detector.batches) == 150
    assert detector.batches[0] == 5


def test_bridged_frames_have_a_picture_and_no_score(tmp_path):
    frames = [scene() if 20 <= k < 24 else scene(50) for k in range(64)]
    path = write_movie(tmp_path / "a.mp4", frames, options={"crf": "10"})
    store, _ = store_of(tmp_path, path)
    assert store.valid.all()
    table = pq.read_table(next((tmp_path / "store" / "data").iterdir()))
    assert [k for k, value in enumerate(table["interpolated"].to_pylist()) if value] == [20, 21, 22, 23]
    assert [k for k, value in enumerate(table["score"].to_pylist()) if value is None] == [20, 21, 22, 23]


def test_a_labelled_picture_keeps_the_face_in_its_box(tmp_path):
    (tmp_path / "p.jpg").write_bytes(encode_jpeg(scene(10, 180)))
    item = Item("p", tmp_path / "p.jpg", "p.jpg", "picture", box=(175.0, 35.0, 225.0, 85.0))
    (group,) = make_groups([item])
    make_shard(tmp_path / "store", group, Settings(), Detector())
    finish_store(tmp_path / "store", made_by="test", config={}, image_size=112, problems=[])
    store = FacesStore(tmp_path / "store")
    assert len(store) == 1
    assert store.landmarks(0)[:, 0].min() > 175


def test_numbered_frames_with_one_missing(tmp_path):
    (tmp_path / "clip").mkdir()
    for k in (1, 2, 3, 5, 6):
        (tmp_path / "clip" / f"{k:05d}.jpg").write_bytes(encode_jpeg(scene(30)))
    (tmp_path / "clip" / "00004.jpg").write_bytes(b"damaged")
    store, logs = store_of(tmp_path, tmp_path)
    assert [(s.id, s.length) for s in store.sequences()] == [("clip", 6)]
    assert store.valid.tolist() == [True, True, True, False, True, True]
    assert "00004.jpg cannot be read" in logs[0]["problems"][0]["problem"]


def test_ready_faces_are_fitted_and_kept(tmp_path):
    ready = encode_jpeg(scene()[:112, :112])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "same.jpg").write_bytes(ready)
    (tmp_path / "in" / "wide.jpg").write_bytes(encode_jpeg(scene()))
    store, _ = store_of(tmp_path, tmp_path / "in", crops=True)
    assert [s.id for s in store.sequences()] == ["same", "wide"]
    assert store.jpeg(0) == ready
    assert store.jpeg(1) != ready


def test_chunks_hold_no_more_than_the_budget_but_enough():
    def sizes(shape, budget):
        times = []
        frames = (Frame(k, k / 25, np.zeros(shape, np.uint8)) for k in range(1, 201))
        return [len(chunk) for chunk in chunks(frames, times, budget)], times

    small, times = sizes((10, 10, 3), 1 << 20)
    assert small == [64, 64, 64, 8]
    assert len(times) == 200
    middle, _ = sizes((100, 100, 3), 40 * 30000)
    assert set(middle[:-1]) == {32}
    large, _ = sizes((1000, 1000, 3), 1)
    assert set(large) == {8}


def test_requests_share_batches():
    def work(requests):
        answers = []
        for kind, count in requests:
            images = [scene(20)] * count
            answer = yield Detect(images) if kind == "detect" else Refine(images, np.float32([box_at(20, 40)] * count))
            answers.append(len(answer))
        return answers

    detector = Detector()
    results = run_together(
        [work([("detect", 2), ("refine", 3)]), work([("detect", 1), ("refine", 4), ("detect", 1)]), work([])], detector
    )
    assert results == [[2, 3], [1, 4, 1], []]
    assert detector.batches == [3, 7, 1]


def test_videos_found_together_are_found_as_alone(tmp_path):
    """On a GPU several long videos share batches."""
    items = []
    for k in range(3):
        path = write_movie(tmp_path / f"{k}.mp4", [scene(20 + 30 * k + j) for j in range(40)], options={"crf": "10"})
        items.append(Item(str(k), path, f"{k}.mp4", "video", SHARD_BYTES))
    groups, detector = make_groups(items), Detector()
    found = find_together(tmp_path / "together", groups, Settings(), detector)
    assert detector.batches[0] == 3 * 4  # the searched frames of all three
    for group, ready in zip(groups, found, strict=True):
        make_shard(tmp_path / "together", group, Settings(), detector, ready)
        make_shard(tmp_path / "alone", group, Settings(), Detector())
        shard = f"data/{group.name}.parquet"
        assert (tmp_path / "together" / shard).read_bytes() == (tmp_path / "alone" / shard).read_bytes()


def test_time_is_unknown_for_pictures(tmp_path):
    (tmp_path / "p.jpg").write_bytes(encode_jpeg(scene(10)))
    store, _ = store_of(tmp_path, tmp_path / "p.jpg")
    assert math.isnan(store.time_s[0])


@pytest.mark.parametrize("count", [0, 3])
def test_people_a_data_set_names(tmp_path, count):
    path = write_movie(tmp_path / "a.mp4", [scene(*(20, 100, 190)[:count])] * 20, options={"crf": "10"})
    item = Item("a", path, "a.mp4", "video", subjects=("left", "right"))
    (group,) = make_groups([item])
    log = make_shard(tmp_path / "store", group, Settings(), Detector())
    if count:
        finish_store(tmp_path / "store", made_by="test", config={}, image_size=112, problems=[])
        assert [s.id for s in FacesStore(tmp_path / "store").sequences()] == ["a_left", "a_right"]
    else:
        assert [p["problem"] for p in log["problems"]] == [
            "no face found of subject 'left'",
            "no face found of subject 'right'",
        ]


def test_a_source_that_became_unreadable_leaves_no_rows(tmp_path):
    (tmp_path / "in").mkdir()
    for content in (encode_jpeg(np.zeros((112, 112, 3), np.uint8)), b""):
        (tmp_path / "in" / "a.jpg").write_bytes(content)
        (group,) = make_groups(find_items([tmp_path / "in"], crops=True)[0])
        log = make_shard(tmp_path / "store", group, Settings(112, True), None)
        assert (tmp_path / "store" / "data" / f"{group.name}.parquet").exists() == bool(content)
    assert log["frames"] == 0 and len(log["problems"]) == 1


@pytest.fixture
def release(tmp_path):
    """Labels of five videos: one is whole, one breaks off, one is no video, one was never there, one is longer."""
    root = tmp_path / "release"
    folder = root / "6th ABAW Annotations" / "VA_Estimation_Challenge" / "Train_Set"
    folder.mkdir(parents=True)
    for id, lines in (("whole", 21), ("short", 30), ("broken_left", 7), ("gone", 9), ("long", 8)):
        (folder / f"{id}.txt").write_text("valence,arousal\n" + "0,0\n" * lines)
    (root / "videos").mkdir()
    for name in ("whole.mp4", "short.mp4", "long.mp4"):
        write_movie(root / "videos" / name, [scene(20)] * 20, options={"crf": "10"})
    (root / "videos" / "broken.mp4").write_bytes(b"not a video")
    return root


def spans_of(store):
    rows = {s.id: slice(s.start, s.start + s.length) for s in store.sequences()}
    return {id: (len(store.frame[part]), int(store.valid[part].sum())) for id, part in rows.items()}


def test_listed_videos_that_cannot_be_read_have_rows_without_a_face(tmp_path, release):
    store, logs = store_of(tmp_path, release)
    found = {"whole": (20, 20), "long": (20, 20), "short": (30, 20), "broken_left": (7, 0), "gone": (9, 0)}
    assert spans_of(store) == found
    assert all(store.time_s[store.valid] >= 0) and np.isnan(store.time_s[store.video == "gone"]).all()
    problems = {p["video"]: p["problem"] for log in logs for p in log["problems"] if "no face" not in p["problem"]}
    assert set(problems) == {"short", "broken", "gone"}
    assert problems["short"] == "ends after 20 of 30 listed frames: the others are without a face"


@pytest.mark.parametrize("clock", [True, False])
def test_listed_crops_that_are_not_there_have_rows_without_a_face(tmp_path, release, clock):
    for name, numbers in (("whole", [2, 5]), ("short", [1]), ("broken_left", []), ("long_right", [4, 6])):
        (release / "cropped_aligned" / name).mkdir(parents=True)
        for number in numbers:
            picture = encode_jpeg(np.full((112, 112, 3), 90, np.uint8))
            (release / "cropped_aligned" / name / f"{number:05d}.jpg").write_bytes(picture)
    if not clock:
        (release / "videos").rename(tmp_path / "elsewhere")
    store, logs = store_of(tmp_path, release, crops=True)
    whole, long = (20, 20) if clock else (21, 8)  # the video's frames, or the labels' lines
    assert spans_of(store) == {
        **{"whole": (whole, 2), "long": (long, 0), "short": (30, 1), "gone": (9, 0)},
        **{"broken_left": (7, 0), "long_right": (3, 2)},  # of a second person, from the first to the last crop
    }
    missing = [p["video"] for log in logs for p in log["problems"] if "does not exist" in p["problem"]]
    assert sorted(missing) == ["gone", "long"]


def test_a_listed_video_that_ends_its_process_has_rows_too(tmp_path, release):
    groups = make_groups(find_items([release], crops=False)[0])
    logs = [give_up(tmp_path / "store", group, "ended the process") for group in groups]
    finish_store(tmp_path / "store", made_by="test", config={}, image_size=112, problems=[])
    lengths = {"whole": (21, 0), "short": (30, 0), "broken_left": (7, 0), "gone": (9, 0), "long": (8, 0)}
    assert spans_of(FacesStore(tmp_path / "store")) == lengths
    assert sum(log["frames"] for log in logs) == 75 and sum(log["items"] for log in logs) == 5
