import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from checkpoints.encoder import load_encoder
from checkpoints.errors import UserError
from preprocessing import views
from preprocessing.faces import HEADER
from pretrain import streaming
from pretrain.recipes import DEMO
from pretrain.run import main
from pretrain.streaming import FacesStream, StreamedCrops, StreamedMixture
from tests import processes  # noqa: F401 - whose server has torch
from tests.pretrain.corpus import make_store
from tests.pretrain.test_run import TINY, weights
from wildaffect.training.batches import BatchPlan
from wildaffect.training.images import RandomCrop, work_ahead


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Sixty rows in six shards, five of them without a face."""
    seeds = [None if n % 12 == 5 else n for n in range(60)]
    return make_store(tmp_path_factory.mktemp("remote") / "faces", seeds, shards=6)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK", 7)


def crops(store, first, last, rank=0, world=1, batch_size=4, most=2):
    plan = BatchPlan.derive(count=55, batch_size=batch_size, most=most, rank=rank, world=world, seed=3)
    return StreamedCrops(
        StreamedMixture([f"file://{store}"]), plan, first, last, crop=RandomCrop(32, (1, 1)), patches=4
    )


def pictures(found):
    """A value that identifies a picture, mirrored or not."""
    return [tuple(np.sort(image.numpy().ravel())[::97].tolist()) for part in found for image in part["images"]]


def test_an_epoch_holds_every_picture_once(store):
    faces = StreamedMixture([f"file://{store}"])
    assert len(faces) == faces.faces.sum() == 55 and len(faces.faces) == 6
    assert faces.videos == [f"v{n}" for n in range(6)]
    seen = pictures(crops(store, 0, 55, batch_size=1, most=1))
    assert len(set(seen)) == 55
    again = pictures(crops(store, 55, 110, batch_size=1, most=1))
    assert set(again) == set(seen) and again != seen


@pytest.mark.parametrize(("first", "workers"), [(1, 0), (9, 0), (30, 0), (9, 2)])
def test_reading_on_from_a_step_gives_what_would_have_come(store, first, workers):
    if workers:
        streaming.BLOCK = 4096  # as the workers, which start afresh, have it
    whole = [*work_ahead(crops(store, 0, 34), workers, start="forkserver")]
    rest = [*work_ahead(crops(store, first, 34), workers, start="forkserver")]
    assert len(whole) == 68 and len(rest) == 2 * (34 - first)
    for one, other in zip(whole[2 * first :], rest, strict=True):
        assert all((one[key] == other[key]).all() for key in ("images", "noise"))


def test_processes_share_the_shards_out(store):
    parts = [set(pictures(crops(store, 0, 12, rank=rank, world=2))) for rank in range(2)]
    assert not parts[0] & parts[1]


def test_workers_are_no_more_than_shards(store, capsys):
    faces = StreamedMixture([store])
    assert (faces.workers(2, 2), faces.workers(0, 6), faces.workers(8, 2)) == (2, 0, 3)
    assert capsys.readouterr().out.count("6 shards to deal out: 3 worker(s) per process") == 1
    with pytest.raises(UserError, match="6 shards to deal out, too few for 8 processes"):
        faces.workers(1, 8)


def test_a_bad_picture_gives_its_place_to_another(store, monkeypatch):
    real = views.decode

    def decode(jpeg):
        if len(jpeg) % 5 == 0:
            raise RuntimeError("cut off")
        return real(jpeg)

    monkeypatch.setattr(views, "decode", decode)
    batches = [*crops(store, 0, 20)]
    assert len(pictures(batches)) == 80
    assert any("cut off" in name for batch in batches for name in batch["skipped"])
    # Each name is that of the picture that was taken.
    names = [name for batch in batches for name in batch["names"]]
    assert len(names) == 80 and len(set(names)) == len(set(pictures(batches)))


def test_a_bad_step_of_a_streamed_run_names_its_pictures(store, tmp_path):
    settings = {**TINY, "faces": (f"file://{store}",), "lr": 1e9, "clip_grad": 0.0}
    with pytest.raises(UserError, match=r"is not finite|is nan|is inf"):
        main(replace(DEMO, out=tmp_path / "run", **settings))
    (names,) = json.loads((tmp_path / "run" / "non_finite.json").read_text())["samples_by_process"]
    assert len(names) == 8 and all(name.startswith(str(store)) and ", picture " in name for name in names)


def test_a_streamed_run_resumes_as_if_nothing_had_been(store, tmp_path, monkeypatch):
    from wildaffect.training.loop import Loop

    settings = {**TINY, "faces": (f"file://{store}",)}
    whole = main(replace(DEMO, out=tmp_path / "whole", **settings))
    assert whole["stores"][0]["pictures"] == 55
    assert load_encoder(tmp_path / "whole").provenance["unlabelled_videos"] == [f"v{n}" for n in range(6)]
    log = Loop._log
    monkeypatch.setattr(Loop, "_log", lambda self, *a: (log(self, *a), self.step == 5 and os.kill(os.getpid(), 15)))
    with pytest.raises(SystemExit):
        main(replace(DEMO, out=tmp_path / "stopped", **settings))
    monkeypatch.undo()
    monkeypatch.setattr(streaming, "BLOCK", 7)
    main(replace(DEMO, out=tmp_path / "stopped", **settings))
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Twenty other faces in two shards."""
    return make_store(tmp_path_factory.mktemp("other") / "faces", range(100, 120), shards=2)


def mixed(stores, first, last, weights=(), **options):
    plan = BatchPlan.derive(count=75, batch_size=4, most=2, rank=0, world=1, seed=3)
    faces = StreamedMixture(stores, weights, **options)
    return StreamedCrops(faces, plan, first, last, crop=RandomCrop(32, (1, 1)), patches=4)


def names(found):
    return [name for part in found for name in part["names"]]


def test_without_weights_the_pictures_of_all_stores_come_once_an_epoch(store, other):
    seen = names(mixed([f"file://{store}", other], 0, 75))
    assert len(set(seen[:75])) == len(set(seen[75:150])) == 75
    first = [str(other) in name for name in seen[:75]]
    assert sum(first) == 20 and first != sorted(first)


def test_weights_are_shares_of_the_samples_and_passes_are_whole(store, other):
    crops = mixed([f"file://{store}", other], 0, 70, (1, 3))
    seen = names(crops)
    from_other = [name for name in seen if str(other) in name]
    assert len(from_other) == 210
    for start in range(0, 200, 20):  # each picture once before one comes twice
        assert len(set(from_other[start : start + 20])) == 20
    assert sum(str(store) in name for name in seen[:140]) == 35  # spread over the run
    shares = crops.faces.statistics(4)
    assert [part["share"] for part in shares] == [0.25, 0.75]
    assert [part["passes"] for part in shares] == pytest.approx([4 * 75 / 4 / 55, 4 * 75 * 3 / 4 / 20])


def test_a_small_share_is_not_rounded_away(store, other):
    faces = StreamedMixture([store, other], (1e-4, 1))
    assert faces.taken(100_000).tolist() == [9, 99_991]


@pytest.mark.parametrize("weights", [(), (1, 3)])
def test_a_mixture_is_read_on_from_a_step(store, other, weights):
    whole = names(mixed([store, other], 0, 40, weights))
    for first in (1, 9, 33):
        assert names(mixed([store, other], first, 40, weights)) == whole[4 * first :]


def test_excluded_recordings_are_not_streamed(store, other, tmp_path):
    path = tmp_path / "leave_out.txt"
    path.write_text("v1_left\nnobody\n")
    with pytest.raises(UserError, match="1 of its 2 ids match nothing here: 'nobody'"):
        mixed([store, other], 0, 14, exclude=path)
    path.write_text("v1_left\n")
    crops = mixed([store, other], 0, 14, exclude=path)
    assert [part["excluded"] for part in crops.faces.statistics(1)] == [9, 10]
    assert crops.faces.videos == ["v0", "v2", "v3", "v4", "v5"] and len(crops.faces) == 56
    seen = names(crops)
    assert len(set(seen)) == 56 and not any("data/s1.parquet" in name for name in seen)
    assert crops.faces.fingerprints.keys() == {"faces_0", "faces_1", "excluded"}


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_an_object_store_is_read_like_a_disk(store, other, tmp_path, monkeypatch):
    s3fs = pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "of",
        "AWS_SECRET_ACCESS_KEY": "nobody",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not answers(port) and time.monotonic() < deadline:
            time.sleep(0.05)
        remote = s3fs.S3FileSystem()
        remote.mkdir("bucket")
        for number, path in enumerate((store, other)):
            remote.put(str(path), f"bucket/faces{number}", recursive=True)
        streaming.BLOCK = 4096  # as the workers, which start afresh, have it
        faces = ["s3://bucket/faces0", "s3://bucket/faces1"]
        there = [*work_ahead(mixed(faces, 0, 30, (1, 3)), 1, start="spawn")]  # with the variables set above
        assert [*FacesStream(faces[0]).videos] == [f"v{number}" for number in range(6)]
        fetch, fetched = s3fs.S3File._fetch_range, []
        monkeypatch.setattr(s3fs.S3File, "_fetch_range", lambda *of: fetched.append(of[2] - of[1]) or fetch(*of))
        with FacesStream(faces[0])._open(0) as shard:
            shard.read(8)
        assert fetched == [8]  # nothing is read ahead: names are few bytes in a shard of 50 MB
    finally:
        server.kill()
        server.wait()
    here = [*mixed([store, other], 0, 30, (1, 3))]
    assert all((one["images"] == two["images"]).all() for one, two in zip(there, here, strict=True))
    with pytest.raises(UserError, match="s3://bucket/faces0 cannot be read as a faces store"):
        s3fs.S3FileSystem.clear_instance_cache()
        FacesStream("s3://bucket/faces0")


def test_refusals(store, tmp_path):
    with pytest.raises(UserError, match="cannot be read as a faces store"):
        FacesStream(f"file://{tmp_path}/nothing")
    with pytest.raises(UserError, match="--weights 1 2: expected 1 numbers above 0"):
        StreamedMixture([store], (1, 2))
    shutil.copytree(store, tmp_path / "part")
    next((tmp_path / "part" / "data").glob("*.parquet")).unlink()
    with pytest.raises(UserError, match=r"a shard of .* cannot be read"):
        FacesStream(f"file://{tmp_path}/part", frozenset({"v0"}))
    shutil.copytree(store, tmp_path / "other")
    header = (tmp_path / "other" / HEADER).read_text()
    (tmp_path / "other" / HEADER).write_text(header.replace('"faces store"', '"something else"'))
    with pytest.raises(UserError, match="describes a something else, not a faces store"):
        FacesStream(f"file://{tmp_path}/other")
