import json
import pickle

import datasets
import numpy as np
import pytest
from datasets.exceptions import DatasetGenerationError

from checkpoints.errors import UserError
from preprocessing import write_faces
from preprocessing.faces import DATA, FEATURES, HEADER, FacesStore
from preprocessing.write_faces import arrow_schema, finish_store, write_shard


def row(video: str, subject: str, frame: int, jpeg: bytes | None) -> dict:
    seen = jpeg is not None
    return {
        "video": video,
        "subject": subject,
        "frame": frame,
        "time_s": frame / 25,
        "image": jpeg,
        "box": [1.0, 2.0, 3.0, 4.0] if seen else None,
        "landmarks": list(map(float, range(10))) if seen else None,
        "score": 0.99 if seen else None,
    }


def finish(store, **changes):
    finish_store(store, **{"made_by": "test", "config": {}, "image_size": 8, "problems": [], **changes})


@pytest.fixture
def store(tmp_path):
    """Video `a` of 600 frames with gaps and a second subject in frames 3 and 4, and video `b` of one frame."""
    main = [row("a", "", k, None if k % 7 == 0 else f"a{k}".encode()) for k in range(1, 601)]
    other = [row("a", "left", k, f"left{k}".encode()) for k in (3, 4)]
    write_shard(tmp_path, "a", main + other)
    write_shard(tmp_path, "b", [row("b", "", 1, b"b1")])
    finish(tmp_path)
    return tmp_path


def test_round_trip(store):
    faces = FacesStore(store)
    assert len(faces) == 603
    assert [(s.id, s.start, s.length, s.first_frame) for s in faces.sequences()] == [
        ("a", 0, 600, 1),
        ("a_left", 600, 2, 3),
        ("b", 602, 1, 1),
    ]
    assert np.array_equal(faces.valid[:600], np.arange(1, 601) % 7 != 0)
    assert faces.jpeg(0) == b"a1"
    assert faces.jpeg(6) is None
    assert [faces.jpeg(k) for k in (599, 600, 602)] == [b"a600", b"left3", b"b1"]
    assert faces.landmarks(600).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert faces.landmarks(6) is None
    assert faces.time_s[1] == 2 / 25


def test_hashes_that_are_known_are_believed_until_the_store_is_opened(store, monkeypatch):
    header = (store / HEADER).read_bytes()
    hashes = {shard["name"]: shard["hash"] for shard in json.loads(header)["shards"]}
    (store / HEADER).unlink()
    monkeypatch.setattr(write_faces, "content_hashes", lambda folder, names: pytest.fail("hashed again"))
    finish(store, hashes=hashes)
    assert (store / HEADER).read_bytes() == header and len(FacesStore(store)) == 603
    write_shard(store, "b", [row("b", "", 1, b"another")])  # after it was logged
    finish(store, hashes=hashes)
    with pytest.raises(UserError, match=r"b\.parquet was changed"):
        FacesStore(store)


def test_a_pickled_store_reads(store):
    faces = FacesStore(store)
    faces.jpeg(0)
    copy = pickle.loads(pickle.dumps(faces))
    assert copy.jpeg(600) == b"left3"


def test_pictures_in_order_need_no_copy(store):
    faces = FacesStore(store)
    for start, length in ((0, len(faces)), (250, 20), (590, len(faces) - 590), (len(faces) - 1, 1)):
        assert len(list(faces.pictures(start, length))) == length
    assert not (store / ".arrow").exists()
    for start, length in ((0, len(faces)), (255, len(faces) - 255), (250, 20)):
        for row, (jpeg, points) in enumerate(faces.pictures(start, length), start):
            assert jpeg == faces.jpeg(row)
            np.testing.assert_array_equal(points, faces.picture_landmarks(row))


def test_only_the_shards_that_hold_the_wanted_rows_are_opened(store):
    write_shard(store, "c", [row("c", "", k, b"c") for k in (1, 2)])
    finish(store)
    faces = FacesStore(store)
    parts = {(start, length): list(faces.parts(start, length)) for start in range(606) for length in (0, 1, 3, 605)}
    shards = [faces.path / DATA / f"{name}.parquet" for name in "abc"]
    assert parts[601, 3] == [(shards[0], 601, 1), (shards[1], 0, 1), (shards[2], 0, 1)]
    assert parts[602, 1] == [(shards[1], 0, 1)] and parts[603, 605] == [(shards[2], 0, 2)]
    assert all(sum(count for *_, count in found) == min(n, 605 - k) for (k, n), found in parts.items() if k < 605)
    shards[0].unlink()
    shards[2].unlink()
    assert [jpeg for jpeg, _ in faces.pictures(602, 1)] == [b"b1"]


def test_datasets_reads_the_shards_with_their_features(store):
    assert arrow_schema() == datasets.Features.from_dict(FEATURES).arrow_schema
    features = datasets.load_dataset("parquet", data_files=str(store / DATA / "*"), cache_dir=str(store / "hf"))[
        "train"
    ]
    assert features.features["image"] == datasets.Image(decode=False)
    assert features[6]["image"] is None
    assert features[0]["image"]["bytes"] == b"a1"


def test_same_rows_same_bytes(tmp_path):
    rows = [row("v", "", k, bytes([k % 256]) * k) for k in range(1, 700)]
    first = write_shard(tmp_path / "1", "v", iter(rows)).read_bytes()
    assert write_shard(tmp_path / "2", "v", rows).read_bytes() == first


def test_fingerprint_follows_the_rows(store, tmp_path):
    before = FacesStore(store).fingerprint
    write_shard(store, "b", [row("b", "", 1, b"other")])
    finish(store)
    assert FacesStore(store).fingerprint != before


def test_a_failing_writer_leaves_nothing(tmp_path):
    def rows():
        yield row("v", "", 1, b"x")
        raise RuntimeError("decoder died")

    with pytest.raises(RuntimeError, match="decoder died"):
        write_shard(tmp_path, "v", rows())
    assert list((tmp_path / DATA).iterdir()) == []


def test_unknown_column_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="oops"):
        write_shard(tmp_path, "v", [{**row("v", "", 1, b""), "oops": 1}])


def test_refusals(store, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("other")
    with pytest.raises(UserError, match="does not exist"):
        FacesStore(elsewhere / "missing")
    with pytest.raises(UserError, match=r"faces\.json"):
        FacesStore(elsewhere)
    finish(elsewhere)
    with pytest.raises(UserError, match="empty"):
        FacesStore(elsewhere)

    header = json.loads((store / HEADER).read_text())
    (store / HEADER).write_text(json.dumps({**header, "schema": 99}))
    with pytest.raises(UserError, match="schema 99"):
        FacesStore(store)
    (store / HEADER).write_text(json.dumps(header))
    (store / DATA / "b.parquet").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"b\.parquet"):
        FacesStore(store)


def test_a_store_that_was_made_again_forgets_its_copy(store):
    assert FacesStore(store).jpeg(602) == b"b1"
    write_shard(store, "b", [row("b", "", 1, b"new")])
    finish(store)
    assert FacesStore(store).jpeg(602) == b"new"
    assert len(list((store / ".arrow").rglob("*.arrow"))) == 1


@pytest.mark.parametrize("pattern", ["*.arrow", "dataset_info.json", "copy.json", "kept.bin"])
@pytest.mark.parametrize("how", ["flipped", "cut"])
def test_a_damaged_copy_is_made_again(store, pattern, how, capsys):
    faces = FacesStore(store)
    wanted = [faces.jpeg(row) for row in range(len(faces))]
    faces.keep("kept.bin", b"computed")
    (path,) = (store / ".arrow").rglob(pattern)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if how == "flipped" else content[: len(content) // 2])
    again = FacesStore(store)
    assert [again.jpeg(row) for row in range(len(again))] == wanted
    assert "was damaged: it is made again" in capsys.readouterr().out
    assert not (store / ".arrow" / "kept.bin").exists()
    assert len(list((store / ".arrow").rglob("*.arrow"))) == 1
    FacesStore(store).jpeg(0)
    assert not capsys.readouterr().out


def test_the_index_is_read_without_the_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(FacesStore, "check", lambda store: None)  # which would find the damage
    pictures = np.random.default_rng(0).bytes(1 << 20)
    path = write_shard(tmp_path, "v", [row("v", "", k, pictures) for k in range(1, 4)] + [row("v", "", 4, None)])
    finish(tmp_path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"damage" * 1000)
    assert FacesStore(tmp_path).valid.tolist() == [True, True, True, False]


def test_a_shard_of_other_content_is_refused(tmp_path):
    """With the same size, so that only its content gives it away."""
    path = write_shard(tmp_path, "v", [row("v", "", k, b"x" * 100) for k in range(1, 4)])
    finish(tmp_path)
    FacesStore(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"v\.parquet was changed after .*faces\.json was written"):
        FacesStore(tmp_path)


def test_ids_that_two_sequences_share_are_refused(tmp_path):
    write_shard(tmp_path, "a", [row("clip", "2", 1, b"a"), row("clip_2", "", 1, b"b")])
    finish(tmp_path)
    with pytest.raises(UserError, match="2 sequences are called 'clip_2'"):
        FacesStore(tmp_path).sequences()


@pytest.mark.parametrize(
    "error",
    [OSError("Not enough disk space"), DatasetGenerationError("An error occurred while generating the dataset")],
)
def test_a_disk_too_small_for_the_mapped_copy_is_named(tmp_path, monkeypatch, error):
    def full(*_, **__):
        raise error from OSError(28, "No space left on device")

    write_shard(tmp_path, "a", [{"video": "a", "subject": "", "frame": 1, "time_s": 0.0, "image": b"jpeg"}])
    finish_store(tmp_path, made_by="test", config={}, image_size=8, problems=[])
    store = FacesStore(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", full)
    with pytest.raises(UserError, match=r"\.arrow: .*No space left on device: free some space"):
        store.jpeg(0)
