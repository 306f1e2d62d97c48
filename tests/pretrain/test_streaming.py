import json
import os
import shutil
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
from pretrain.streaming import FacesStream, StreamedCrops
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
    return StreamedCrops(FacesStream(f"file://{store}"), plan, first, last, crop=RandomCrop(32, (1, 1)), patches=4)


def pictures(found):
    """A value that identifies a picture, mirrored or not."""
    return [tuple(np.sort(image.numpy().ravel())[::97].tolist()) for part in found for image in part["images"]]


def test_an_epoch_holds_every_picture_once(store):
    faces = FacesStream(f"file://{store}")
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
    whole = [*work_ahead(crops(store, 0, 34), workers, start="spawn")]
    rest = [*work_ahead(crops(store, first, 34), workers, start="spawn")]
    assert len(whole) == 68 and len(rest) == 2 * (34 - first)
    for one, other in zip(whole[2 * first :], rest, strict=True):
        assert all((one[key] == other[key]).all() for key in ("images", "noise"))


def test_processes_share_the_shards_out(store):
    parts = [set(pictures(crops(store, 0, 12, rank=rank, world=2))) for rank in range(2)]
    assert not parts[0] & parts[1]


def test_workers_are_no_more_than_shards(store, capsys):
    faces = FacesStream(f"file://{store}")
    assert (faces.workers(2, 2), faces.workers(0, 6), faces.workers(8, 2)) == (2, 0, 3)
    assert capsys.readouterr().out.count("has 6 shards: 3 worker(s) per process") == 1
    with pytest.raises(UserError, match="6 shards, too few for 8 processes"):
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
    settings = {**TINY, "faces": (f"file://{store}",), "lr": 1e30, "clip_grad": 0.0}
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


def test_refusals(store, tmp_path):
    with pytest.raises(UserError, match="cannot be read as a faces store"):
        FacesStream(f"file://{tmp_path}/nothing")
    with pytest.raises(UserError, match="must be the only one and is used as a whole"):
        main(replace(DEMO, faces=(f"file://{store}", store), out=tmp_path / "o", **TINY))
    shutil.copytree(store, tmp_path / "part")
    next((tmp_path / "part" / "data").glob("*.parquet")).unlink()
    with pytest.raises(UserError, match=r"a shard of .* cannot be read"):
        FacesStream(f"file://{tmp_path}/part")
    shutil.copytree(store, tmp_path / "other")
    header = (tmp_path / "other" / HEADER).read_text()
    (tmp_path / "other" / HEADER).write_text(header.replace('"faces store"', '"something else"'))
    with pytest.raises(UserError, match="describes a something else, not a faces store"):
        FacesStream(f"file://{tmp_path}/other")
