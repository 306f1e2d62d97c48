"""The command as a user runs it: from sources to a store, with faults, workers and kills."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from checkpoints.artifact import read_json
from checkpoints.errors import UserError
from checkpoints.lock import locked
from preprocessing import sources, workers
from preprocessing.align import decode_jpeg, encode_jpeg
from preprocessing.faces import DATA, HEADER, FacesStore
from preprocessing.run import Config, run
from preprocessing.shard import LOG
from preprocessing.tracks import portray
from preprocessing.video import read_frames
from tests import processes
from tests.figures import figures_left_out
from tests.preprocessing.movies import packets, write_movie
from tests.preprocessing.test_pictures import png_claiming


def content(store: Path) -> dict[str, bytes]:
    """Every file that belongs to the result."""
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and ".arrow" not in path.parts
    }


@pytest.fixture(scope="module")
def faces(synthwild_tiny, tmp_path_factory):
    pytest.importorskip("facenet_pytorch")
    out = tmp_path_factory.mktemp("faces") / "store"
    run(Config(source=[str(synthwild_tiny / "release")], out=out, workers=1))
    return out


def test_every_subject_of_a_release_has_its_frames(faces, synthwild_tiny):
    corpus = read_json(synthwild_tiny / "synthwild.json")["videos"]
    store = FacesStore(faces)
    labelled = [video for video in corpus.values() if video["file"].startswith("release/")]
    frames = {id: video["frames"] for video in labelled for id in video["subjects"]}
    sequences = {sequence.id: sequence for sequence in store.sequences()}
    assert set(sequences) == set(frames)
    for id, sequence in sequences.items():
        rows = slice(sequence.start, sequence.start + sequence.length)
        assert (np.diff(store.frame[rows]) == 1).all()
        assert (np.diff(store.time_s[rows]) > 0).all()
        if not sequence.subject:
            assert (sequence.first_frame, sequence.length) == (1, frames[id])
    assert store.header["synthetic"]
    assert store.header["problems"] == []
    assert store.image_size == 112


def test_faces_are_found_and_are_the_right_person(faces, synthwild_tiny):
    """A face is found where the release has a crop, and is more similar to that subject's crop than to the other's."""
    store, root = FacesStore(faces), synthwild_tiny / "release" / "cropped_aligned"
    crops = found = compared = right = 0
    for sequence in store.sequences():
        others = {p.name for p in root.glob(f"{sequence.video}*")} - {sequence.id}
        others &= {sequence.video, f"{sequence.video}_left", f"{sequence.video}_right"}
        for row in range(sequence.start, sequence.start + sequence.length, 5):
            name = f"{store.frame[row]:05d}.jpg"
            own = root / sequence.id / name
            if not own.exists():
                continue
            crops += 1
            if (jpeg := store.jpeg(row)) is None:
                continue
            found += 1
            for other in others:
                if (root / other / name).exists():
                    look = portray(decode_jpeg(jpeg))
                    mine, theirs = (portray(decode_jpeg(p.read_bytes())) for p in (own, root / other / name))
                    compared += 1
                    right += look @ mine > look @ theirs
    assert crops > 100
    assert found / crops > 0.95
    assert compared > 20
    assert right / compared > 0.9


def test_crops_of_a_release_are_passed_on(synthwild_tiny, crops):
    release, store = synthwild_tiny / "release", FacesStore(crops)
    ids = {path.name for path in (release / "cropped_aligned").iterdir()}
    assert {sequence.id for sequence in store.sequences()} == ids
    for sequence in store.sequences():
        folder = release / "cropped_aligned" / sequence.id
        for row in range(sequence.start, sequence.start + sequence.length):
            crop = folder / f"{store.frame[row]:05d}.jpg"
            assert store.jpeg(row) == (crop.read_bytes() if crop.exists() else None)
        if not sequence.subject:
            video = next((release / "videos").rglob(f"{sequence.video}.*"))
            assert sequence.length == len(command_times(video))
            assert np.allclose(store.time_s[sequence.start : sequence.start + sequence.length], command_times(video))


def command_times(video):
    return [frame.time_s for frame in read_frames(video, print)]


# A process that has not used torch may be forked, and its children need not import it.
FORKED = "import multiprocessing; from preprocessing import workers\n"
FORKED += "workers.get_context = lambda _: multiprocessing.get_context('fork')\n"


@pytest.fixture(scope="module")
def clips(synthwild_tiny, tmp_path_factory):
    """Some short clips and a file that is none."""
    folder = tmp_path_factory.mktemp("clips") / "in"
    folder.mkdir()
    for number in range(3):
        shutil.copy(synthwild_tiny / "unlabelled" / f"u{number:05d}.mp4", folder)
    (folder / "text.mp4").write_text("not a video")
    return folder


@pytest.fixture(scope="module")
def of_clips(clips, tmp_path_factory):
    """The store of these clips, each in a shard of its own."""
    pytest.importorskip("facenet_pytorch")
    out = tmp_path_factory.mktemp("clips") / "store"
    with pytest.MonkeyPatch.context() as patch, figures_left_out():  # as in the tests: the report is part of it
        patch.setattr(sources, "SHARD_VIDEOS", 1)
        run(Config(source=[str(clips)], out=out, workers=1))
    return out


def test_processes_do_not_change_a_byte(of_clips, clips, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SHARD_VIDEOS", 1)
    monkeypatch.setattr(workers, "get_context", lambda _: processes.SERVER)
    run(Config(source=[str(clips)], out=tmp_path / "store", workers=2))
    assert content(tmp_path / "store") == content(of_clips)
    assert [problem["video"] for problem in FacesStore(of_clips).header["problems"]] == ["text"]


def test_a_second_run_is_refused_while_one_writes(pictures, tmp_path):
    out = tmp_path / "store"
    config = Config(source=[str(pictures)], out=out, crops=True, workers=1)
    out.mkdir()
    with locked(out), pytest.raises(UserError, match=f"{out} is being written by"):
        run(config)
    run(config)


def test_killed_and_started_again_it_is_as_if_nothing_had_been(of_clips, clips, tmp_path, monkeypatch):
    out = tmp_path / "store"
    code = "from preprocessing import run, sources; sources.SHARD_VIDEOS = 1; run.main()"
    process = processes.start("-c", code, "--source", clips, "--out", out, "--workers", "1")
    deadline = time.monotonic() + 120
    while not list((out / LOG).glob("*.json")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in (out / LOG).glob("*.json")}
    assert finished
    assert not (out / HEADER).exists()
    monkeypatch.setattr(sources, "SHARD_VIDEOS", 1)
    run(Config(source=[str(clips)], out=out, workers=1))
    assert {path: path.stat().st_mtime_ns for path in finished} == finished  # not made again
    assert content(out) == content(of_clips)


def test_a_finished_store_is_left_alone(faces, synthwild_tiny, capsys):
    before = {path: path.stat().st_mtime_ns for path in faces.rglob("*")}
    run(Config(source=[str(synthwild_tiny / "release")], out=faces, workers=1))
    assert "already complete" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    whole = (faces / HEADER).read_bytes()
    (faces / HEADER).write_bytes(whole.replace(b'"synthetic"', b'"synthetid"'))
    run(Config(source=[str(synthwild_tiny / "release")], out=faces, workers=1))
    assert (faces / HEADER).read_bytes() == whole


@pytest.fixture
def clip(synthwild_tiny):
    """A short video with one face."""
    return synthwild_tiny / "unlabelled" / "u00000.mp4"


@pytest.fixture
def faults(tmp_path, clip):
    """A folder of good videos and of everything that can go wrong."""
    folder = tmp_path / "faults"
    folder.mkdir()
    shutil.copy(clip, folder / "good.mp4")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("not a video")
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(30)]
    moov_last = write_movie(folder / "moov_missing.mp4", noise).read_bytes()
    (folder / "moov_missing.mp4").write_bytes(moov_last[: len(moov_last) // 2])
    half = write_movie(folder / "half.mp4", noise, container={"movflags": "faststart"}).read_bytes()
    (folder / "half.mp4").write_bytes(half[: len(half) // 2])
    corrupt = write_movie(folder / "corrupt.mp4", noise, options={"bf": "0", "g": "5"})
    place, size = packets(corrupt)[15]
    data = bytearray(corrupt.read_bytes())
    data[place : place + size] = bytes(size)
    corrupt.write_bytes(data)
    write_movie(folder / "pixel.mkv", [np.zeros((1, 1, 3), np.uint8)] * 5, codec="ffv1")
    (folder / "bomb.png").write_bytes(png_claiming(60000, 60000))
    shutil.copy(clip, folder / "with space.mp4")
    shutil.copy(clip, folder / "new\nline.mp4")
    shutil.copy(clip, folder / "Zoë 日本.mp4")
    for other in ("one", "two"):
        (folder / other).mkdir()
        shutil.copy(clip, folder / other / "same.mp4")
    locked = folder / "locked.mp4"
    shutil.copy(clip, locked)
    locked.chmod(0)
    return folder


def test_faults_are_listed_and_stop_nothing(faults, clip, tmp_path):
    pytest.importorskip("facenet_pytorch")
    out = tmp_path / "store"
    run(Config(source=[str(faults)], out=out, workers=1))
    store = FacesStore(out)
    problems = {}
    for problem in store.header["problems"]:
        problems.setdefault(problem["source"].removeprefix("faults/"), []).append(problem["problem"])
    for name, text in {
        "empty.mp4": "cannot be opened",
        "text.mp4": "cannot be opened",
        "moov_missing.mp4": "cannot be opened",
        "half.mp4": "ends early",
        "corrupt.mp4": "damaged",
        "bomb.png": "pixels",
        "pixel.mkv": "no face",
        "new\nline.mp4": "control characters",
        "one/same.mp4": "same name",
        "two/same.mp4": "same name",
    }.items():
        assert any(text in problem for problem in problems.pop(name)), name
    if os.geteuid():  # root reads it all the same
        assert "Permission denied" in problems.pop("locked.mp4")[0]
    assert problems == {}
    lengths = {sequence.id: sequence.length for sequence in store.sequences()}
    good = lengths["good"]
    assert good == len(command_times(clip))
    assert all(lengths[name] == good for name in ("with space", "new_line", "Zoë 日本", "one__same", "two__same"))
    assert lengths["corrupt"] == 30
    assert lengths["pixel"] == 5
    assert 2 < lengths["half"] < 30
    assert not {"empty", "text", "moov_missing", "bomb"} & lengths.keys()
    first = {name: next(s.start for s in store.sequences() if s.id == name) for name in ("good", "Zoë 日本")}
    assert store.jpeg(first["good"]) is not None


def test_only_unreadable_sources_end_with_a_message_and_leave_nothing(tmp_path):
    pytest.importorskip("facenet_pytorch")
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(UserError, match=r"text\.mp4 cannot be opened"):
        run(Config(source=[str(tmp_path / "text.mp4")], out=tmp_path / "store", workers=1))
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_stops_the_run_and_it_goes_on_afterwards(tmp_path, workers, monkeypatch):
    """The first shard is written, then the disk is full."""
    source = tmp_path / "pictures"
    source.mkdir()
    monkeypatch.setattr(sources, "SHARD_PICTURES", 4)
    for k in range(8):
        (source / f"p{k}a.jpg").write_bytes(encode_jpeg(np.full((64, 64, 3), k % 250, np.uint8)))
    arguments = ["--source", str(source), "--crops", "--out", str(tmp_path / "store"), "--workers", str(workers)]
    script = (
        "import errno, sys; from preprocessing import run, shard, sources; real = shard.write_shard\n"
        "sources.SHARD_PICTURES = 4\n"
        f"{FORKED}"
        "def full(store, name, rows):\n"
        "    try: (store / 'first').touch(exist_ok=False)\n"
        "    except FileExistsError: raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "    return real(store, name, rows)\n"
        "shard.write_shard = full\n"
        "if __name__ == '__main__': run.guarded(run.main)\n"
    )
    (tmp_path / "full.py").write_text(script)
    done = processes.run(tmp_path / "full.py", *arguments)
    assert done.returncode == 2
    assert "No space left on device: free some space" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "store" / HEADER).exists()
    run(Config(source=[str(source)], out=tmp_path / "store", crops=True, workers=1))
    assert len(FacesStore(tmp_path / "store")) == 8


def test_a_source_that_kills_its_process_does_not_stop_the_others(tmp_path, clip):
    for name in "abc":
        (tmp_path / "in" / name).mkdir(parents=True)
        for k in range(3):
            (tmp_path / "in" / name / f"{k + 1:05d}.jpg").write_bytes(encode_jpeg(np.zeros((112, 112, 3), np.uint8)))
    script = (
        "import os, sys; from preprocessing import rows, run, sources; real = rows.picture_bytes\n"
        "sources.SHARD_VIDEOS = 1\n"
        f"{FORKED}"
        "def kills(source):\n"
        "    if 'b' in str(source.parent.name): os._exit(9)\n"
        "    return real(source)\n"
        "rows.picture_bytes = kills\n"
        "if __name__ == '__main__': run.guarded(run.main)\n"
    )
    (tmp_path / "kills.py").write_text(script)
    arguments = ["--source", str(tmp_path / "in"), "--crops", "--workers", "2", "--out", str(tmp_path / "store")]
    done = processes.run(tmp_path / "kills.py", *arguments)
    assert done.returncode == 0, done.stderr
    store = FacesStore(tmp_path / "store")
    assert [sequence.id for sequence in store.sequences()] == ["a", "c"]
    assert [problem["video"] for problem in store.header["problems"]] == ["b"]
    assert "ended the process" in store.header["problems"][0]["problem"]


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(encode_jpeg(np.zeros((112, 112, 3), np.uint8)))
    return tmp_path / "pictures"


def test_a_missing_device_is_reported_before_anything_is_written(pictures, tmp_path):
    with pytest.raises(UserError, match="--device cuda:99 cannot be used"):
        run(Config(source=[str(pictures)], out=tmp_path / "store", device="cuda:99"))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("missing", ["facenet_pytorch", "requests"])
def test_a_missing_detector_is_reported_before_anything_is_written(pictures, tmp_path, missing):
    # Older versions of `datasets` import requests too.
    code = f"import datasets, sys; sys.modules[{missing!r}] = None; from preprocessing.run import main; "
    code += "from checkpoints.errors import guarded; guarded(main)"
    done = processes.run("-c", code, "--source", pictures, "--out", tmp_path / "store")
    assert done.returncode == 2
    assert missing in done.stderr
    assert "pip install 'facenet-pytorch<2.6'" in done.stderr
    assert not (tmp_path / "store").exists()


def test_refusals(pictures, tmp_path):
    out = tmp_path / "store"
    with pytest.raises(UserError, match="is not empty"):
        run(Config(source=[str(pictures)], out=pictures, crops=True))
    run(Config(source=[str(pictures)], out=out, crops=True, workers=1))
    with pytest.raises(UserError, match="was started with"):
        run(Config(source=[str(pictures)], out=out, crops=True, size=224, workers=1))
    (tmp_path / "others").mkdir()
    shutil.copy(pictures / "a.jpg", tmp_path / "others" / "b.jpg")
    with pytest.raises(UserError, match="give all sources"):
        run(Config(source=[str(tmp_path / "others")], out=out, crops=True, workers=1))


def test_a_changed_source_is_read_again(pictures, tmp_path):
    out = tmp_path / "store"
    run(Config(source=[str(pictures)], out=out, crops=True, workers=1))
    before = FacesStore(out).fingerprint
    (pictures / "a.jpg").write_bytes(encode_jpeg(np.random.default_rng(0).integers(0, 255, (112, 112, 3), np.uint8)))
    (pictures / "b.jpg").write_bytes(encode_jpeg(np.zeros((112, 112, 3), np.uint8)))
    run(Config(source=[str(pictures)], out=out, crops=True, workers=1))
    store = FacesStore(out)
    assert store.fingerprint != before
    assert [sequence.id for sequence in store.sequences()] == ["a", "b"]
    assert len(list((out / DATA).iterdir())) == 1
    (pictures / "b.jpg").write_bytes(b"")
    (pictures / "a.jpg").write_bytes(b"")
    (pictures / "c.jpg").write_bytes(encode_jpeg(np.zeros((112, 112, 3), np.uint8)))
    run(Config(source=[str(pictures)], out=out, crops=True, workers=1))
    assert [sequence.id for sequence in FacesStore(out).sequences()] == ["c"]


def test_a_run_killed_while_it_wrote_its_settings_can_begin(pictures, tmp_path):
    out = tmp_path / "store"
    out.mkdir()
    (out / ".config.json.tmp").write_text("{")
    run(Config(source=[str(pictures)], out=out, crops=True, workers=1))
    assert len(FacesStore(out)) == 1


def test_a_run_killed_before_its_data_sheet_still_writes_it(pictures, tmp_path):
    config = Config(source=[str(pictures)], out=tmp_path / "store", crops=True, workers=1)
    run(config)
    sheet = tmp_path / "store" / "report.html"
    before = sheet.read_bytes()
    sheet.unlink()
    run(config)
    assert sheet.read_bytes() == before


def test_the_command_line(pictures, tmp_path):
    def call(*arguments):
        return processes.run("preprocessing/run.py", *arguments)

    done = call("--source", str(tmp_path / "none"), "--out", str(tmp_path / "store"))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"error: {tmp_path / 'none'} does not exist"]
    done = call(
        "--source", str(pictures), "--source", str(pictures / "a.jpg"), "--crops", "--out", str(tmp_path / "store")
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "store" / HEADER).read_text())["items"] == 2
