"""The framing that a store records: of our own alignment, measured on ready crops, or named."""

import sys

import numpy as np
import pytest

from checkpoints.errors import UserError
from checkpoints.framing import ARCFACE, OURS, UNKNOWN
from preprocessing.align import align, decode_jpeg, encode_jpeg
from preprocessing.faces import FacesStore
from preprocessing.run import Config, run
from preprocessing.video import read_frames


@pytest.fixture
def noise(tmp_path):
    """A folder of 48-pixel crops in which no detector finds a face."""
    (tmp_path / "noise").mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        picture = encode_jpeg(rng.integers(0, 255, (48, 48, 3), np.uint8))
        (tmp_path / "noise" / f"p{number}.jpg").write_bytes(picture)
    return tmp_path / "noise"


def test_crops_are_measured(crops):
    assert FacesStore(crops).framing == ARCFACE


@pytest.mark.parametrize(("name", "framing"), [("auto", OURS), ("arcface", ARCFACE), ("STORE", ARCFACE)])
def test_videos_are_aligned_as_asked(synthwild_tiny, crops, tmp_path, name, framing):
    clip = synthwild_tiny / "unlabelled" / "u00000.mp4"
    name = str(crops) if name == "STORE" else name
    run(Config(source=[str(clip)], out=tmp_path / "store", workers=1, framing=name))
    store = FacesStore(tmp_path / "store")
    assert store.framing == framing
    row, frames = int(np.flatnonzero(store.valid)[0]), list(read_frames(clip, print))
    wanted = align(frames[store.frame[row] - 1].image, store.landmarks(row).astype(np.float64), 112, framing)
    assert store.jpeg(row) == encode_jpeg(wanted)
    assert np.abs(store.picture_landmarks(row) - framing.template(112)).max() < 12
    with pytest.raises(UserError, match="was started with"):
        other = "arcface" if framing == OURS else "wildaffect"
        run(Config(source=[str(clip)], out=tmp_path / "store", workers=1, framing=other))


def test_where_nothing_is_found_the_user_names_the_framing(noise, crops, tmp_path, capsys):
    out = tmp_path / "store"
    run(Config(source=[str(noise)], out=out, crops=True, workers=1))
    assert FacesStore(out).framing == UNKNOWN
    said = capsys.readouterr().out
    assert "warning" in said and "--framing" in said and "0 of 6 pictures" in said
    made = {path: path.stat().st_mtime_ns for path in (out / "data").glob("*.parquet")}
    for name, framing in (("arcface", ARCFACE), ("wildaffect", OURS), (str(crops), ARCFACE)):
        run(Config(source=[str(noise)], out=out, crops=True, workers=1, framing=name))
        assert FacesStore(out).framing == framing
    assert "warning" not in capsys.readouterr().out
    run(Config(source=[str(noise)], out=out, crops=True, workers=1))  # auto: what was named stays
    assert FacesStore(out).framing == ARCFACE and "already complete" in capsys.readouterr().out
    assert made and {path: path.stat().st_mtime_ns for path in made} == made


def test_ready_crops_need_no_detector(noise, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "facenet_pytorch.models.mtcnn", None)
    monkeypatch.delitem(sys.modules, "preprocessing.mtcnn", raising=False)
    run(Config(source=[str(noise)], out=tmp_path / "store", crops=True, workers=1))
    assert FacesStore(tmp_path / "store").framing == UNKNOWN
    said = capsys.readouterr().out
    assert "detector is not installed" in said and "--framing" in said


def test_a_framing_that_does_not_exist_is_refused(noise, tmp_path):
    for name, crops, message in (("oval", True, "expected auto"), ("unknown", False, "cannot be aligned")):
        with pytest.raises(UserError, match=message):
            run(Config(source=[str(noise)], out=tmp_path / "store", crops=crops, framing=name))
    assert not (tmp_path / "store").exists()


def test_pictures_are_sampled_from_all_shards(crops):
    from preprocessing.measure_framing import SAMPLE, sample_pictures

    store, pictures = FacesStore(crops), sample_pictures(crops)
    rows = np.flatnonzero(store.valid)
    assert len(pictures) == SAMPLE < len(rows)
    for row, picture in ((rows[0], pictures[0]), (rows[-1], pictures[-1])):
        assert np.array_equal(decode_jpeg(store.jpeg(int(row))), picture)
