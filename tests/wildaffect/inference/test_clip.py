import errno
import hashlib
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from checkpoints.artifact import file_hash, write_header
from checkpoints.errors import UserError
from preprocessing.align import decode_jpeg
from preprocessing.detect import Faces
from tests import processes
from tests.wildaffect.inference.conftest import ARCHITECTURE, make_encoder, make_head
from tests.wildaffect.report.test_page import Page
from wildaffect.cli import Predict
from wildaffect.inference.clip import HEADER, KIND, SCHEMA, WORK, finished
from wildaffect.inference.clip_facts import Facts, facts_of, warnings_of
from wildaffect.inference.clip_page import chart_data, time_lines
from wildaffect.inference.models import load_models
from wildaffect.inference.predictor import Predictor
from wildaffect.inference.table import read_table

CLOCK = 1000


class BrightSquare:
    """A detector that finds the one bright square of a drawn clip, and nothing in a dark frame."""

    def detect(self, images):
        return [self._find(image) for image in images]

    def refine(self, images, boxes):
        found = [self._find(image) for image in images]
        empty = Faces(np.zeros((1, 4), np.float32), np.zeros((1, 5, 2), np.float32), np.zeros(1, np.float32))
        return Faces.join([faces if len(faces) else empty for faces in found])

    def _find(self, image):
        rows, columns = np.nonzero(image[..., 0] > 150)
        if len(rows) < 100:
            return Faces.none()
        x1, x2, y1, y2 = columns.min(), columns.max(), rows.min(), rows.max()
        shape = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
        points = np.array([x1, y1]) + shape * np.array([x2 - x1, y2 - y1])
        box = np.array([[x1, y1, x2, y2]], np.float32)
        return Faces(box, points[None].astype(np.float32), np.array([0.99], np.float32))


def frames_of(clip: Path | str) -> int:
    with av.open(str(clip)) as container:
        return sum(1 for _ in container.decode(video=0))


def write_clip(
    path: Path,
    times: list[int],
    *,
    dark: range = range(0),
    sound: str = "",
    beep: float = float("inf"),
    first: int = 0,
) -> Path:
    """A clip of a bright square that moves; `times` in ms. Its sound begins at `first` and beeps from `beep` s on."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.codec_context.time_base = Fraction(1, CLOCK)
        voice = output.add_stream(sound, rate=16_000) if sound else None
        rng = np.random.default_rng(0)
        for number, time in enumerate(times):
            image = np.full((120, 160, 3), 20, np.uint8)
            if number not in dark:
                image[30:90, 40 + number % 30 : 100 + number % 30] = rng.integers(180, 255, (60, 60, 1), np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, CLOCK)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if voice is not None:
            for start in range(16 * first, 16 * times[-1], 1024):
                seconds = (start + np.arange(1024)) / 16_000
                wave = np.where(seconds >= beep, np.sin(seconds * 2 * np.pi * 1000), 0).astype(np.float32)
                part = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
                part.sample_rate, part.pts = 16_000, start
                output.mux(voice.encode(part))
            output.mux(voice.encode())
    return path


TIMES = [40 * n for n in range(30)] + [1200 + 90 * n for n in range(30)]  # the frame rate changes half way
DARK = range(25, 42)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "a clip.mp4", TIMES, dark=DARK, sound="aac")


@pytest.fixture
def drawn_detector(monkeypatch):
    monkeypatch.setattr(Predictor, "detector", BrightSquare())


@pytest.fixture
def result(clip, heads, tmp_path, drawn_detector) -> Path:
    Predict(clips=(clip,), heads=tuple(heads), out=tmp_path).run()
    return tmp_path / "a clip"


def test_a_clip_gets_all_its_files_once(clip, heads, result, capsys):
    names = {"predictions.csv", "predictions.parquet", "plot.png", "annotated.mp4", "report.html", HEADER}
    assert {path.name for path in result.iterdir()} == names
    table = read_table(result / "predictions.parquet")
    assert table["frame"].to_pylist() == list(range(1, 61))
    assert np.allclose(table["time_s"].to_numpy(), np.array(TIMES) / CLOCK, atol=1e-3)
    face = table["face"].to_numpy(zero_copy_only=False)
    assert face[:25].all() and face[42:].all() and not face[25:42].any()
    header = json.loads((result / HEADER).read_text())
    assert header["parents"]["clip"] == hashlib.sha256(clip.read_bytes()).hexdigest()
    assert set(header["kinds"].values()) == {"synthetic"}
    assert "drawn faces" in header["warnings"][0]
    before = {path.name: path.stat().st_mtime_ns for path in result.iterdir()}
    Predict(clips=(clip,), heads=tuple(heads), out=result.parent).run()
    assert "done already (60 frames)" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in result.iterdir()} == before
    Predict(clips=(clip,), heads=tuple(heads[:1]), out=result.parent, annotate=False).run()  # other heads: done again
    assert "p_AU1" not in read_table(result / "predictions.parquet").column_names
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert said == ["[1/1] a clip: finding faces", "[1/1] a clip: predicting"]  # where there is no terminal


def test_the_annotated_video_keeps_every_frame_time_and_the_sound(clip, result):
    with av.open(str(result / "annotated.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt, audio.codec_context.name) == (
            "h264",
            "yuv420p",
            "aac",
        )
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video)]
    assert np.allclose([time for time, _ in frames], np.array(TIMES) / CLOCK, atol=1e-3)
    with av.open(str(clip)) as source, av.open(str(result / "annotated.mp4")) as container:
        sounds = [[(p.pts * p.time_base, bytes(p)) for p in c.demux(audio=0) if p.size] for c in (source, container)]
    assert len(sounds[0]) > 30 and sounds[0] == sounds[1]
    panel = [image[:, -260:].astype(int) for _, image in frames]
    assert np.abs(panel[10] - panel[33]).max() > 80  # bars and label are there, then gone with the face


@pytest.mark.parametrize("suffix, codec", [(".mp4", "aac"), (".mkv", "pcm_s16le")])
def test_a_flash_and_its_beep_stay_together(suffix, codec, tmp_path, heads, drawn_detector):
    """In the picture and sound of the annotated video, a second after its start."""
    clip = write_clip(tmp_path / f"clip{suffix}", [40 * n for n in range(50)], dark=range(25), sound=codec, beep=1.0)
    Predict(clips=(clip,), heads=(heads[0],), out=tmp_path / "out").run()
    with av.open(str(tmp_path / "out" / "clip" / "annotated.mp4")) as container:
        bright = [f.time for f in container.decode(video=0) if f.to_ndarray(format="rgb24")[:, :-260].max() > 150]
    with av.open(str(tmp_path / "out" / "clip" / "annotated.mp4")) as container:
        parts = [(part.time, np.abs(part.to_ndarray()).max(axis=0)) for part in container.decode(audio=0)]
    loud = [time + int(np.argmax(wave > 0.25)) / 16_000 for time, wave in parts if (wave > 0.25).any()]
    assert abs(bright[0] - 1.0) < 0.001 and abs(loud[0] - 1.0) < 0.02


@pytest.mark.parametrize(
    "suffix, codec", [(".mkv", "pcm_s16le"), (".avi", "libmp3lame")]
)  # the clock of the second is coarse
def test_other_sound_is_encoded(suffix, codec, tmp_path, heads, drawn_detector):
    clip = write_clip(tmp_path / f"clip{suffix}", TIMES[:30], sound=codec)
    Predict(clips=(clip,), heads=(heads[0],), out=tmp_path / "out").run()
    with av.open(str(tmp_path / "out" / "clip" / "annotated.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        seconds = sum(frame.samples for frame in container.decode(audio=0)) / 16_000
    assert abs(seconds - TIMES[29] / CLOCK) < 0.2


def test_a_gap_in_the_sound_stays_and_coarse_times_are_smoothed(tmp_path):
    from wildaffect.inference.annotate import Sound

    silence, clip, copy = bytes(2 * 1152), tmp_path / "gap.mkv", tmp_path / "copy.mp4"
    with av.open(str(clip), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=16_000)
        stream.layout = "mono"
        for number in range(100):
            packet = av.Packet(silence)
            packet.stream, packet.time_base = stream, Fraction(1, 16_000)
            packet.pts = packet.dts = 1152 * (number - number % 2) + (32_000 if number >= 50 else 0)
            output.mux(packet)
    with av.open(str(copy), "w") as output:
        Sound(clip, output).mux_until(float("inf"))
    with av.open(str(copy)) as container:
        times = np.array([frame.time for frame in container.decode(audio=0)])
    steps = np.diff(times)
    assert (np.abs(steps - 0.064) > 0.01).sum() == 1 and abs(steps.max() - 2.064) < 0.01
    assert abs(times[-1] + 0.064 - 9.2) < 0.1


def test_the_page_is_whole_and_says_what_it_is(result):
    text = (result / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "http" not in text.replace("http-equiv", "") and all(source.startswith("data:") for source in page.sources)
    assert "drawn faces" in text and "must not be used" in text and "Peaks: person 1" in text
    for run in ("va", "expr", "au"):
        assert f"<td>{run}</td>" in text


def test_every_output_names_its_heads_and_their_scores(result):
    import pyarrow.parquet as pq

    with av.open(str(result / "annotated.mp4")) as container:
        comment = container.metadata["comment"]
    inside = pq.read_schema(result / "predictions.parquet").metadata
    said = json.loads(inside[b"wildaffect"])
    for text in (comment, said["credit"]):
        assert "va: head va, recipe demo, trained on 2 videos or pictures of synthetic faces" in text
        assert "score 0.400 (chance 0.100) on 2 videos used neither for training" in text and "au: head au" in text
    assert "drawn faces" in said["warnings"][0]
    header = json.loads((result / HEADER).read_text())  # beside the CSV
    assert said.items() <= header.items()


def test_charts_hold_the_table(result):
    import base64

    table = read_table(result / "predictions.parquet")
    (person,) = chart_data(table)["people"]
    valence = np.frombuffer(base64.b64decode(person["valence"]), "<i2")
    expected = table["valence"].to_numpy(zero_copy_only=False)
    assert np.array_equal(valence == -32768, np.isnan(expected))
    assert np.nanmax(np.abs(np.where(valence == -32768, np.nan, valence) / 10000 - expected)) < 1e-4
    assert len(base64.b64decode(person["aus"])) == 60 * 12
    assert "</script><" not in str(time_lines(table)).split("application/json")[1].split("</script>")[0]


@pytest.mark.parametrize("form", ["", "a clip", "a clip/predictions.csv", "a clip/predictions.parquet"])
def test_the_tables_can_be_scored(result, form, tmp_path, capsys):
    """Against the predictions as labels; frames without a face take the nearest frame's."""
    from temporal.evaluate import Evaluate, main

    table = read_table(result / "predictions.parquet")
    rows = [[row["valence"], row["arousal"]] for row in table.to_pylist()]
    rows[25:42] = [rows[24]] * 9 + [rows[42]] * 8
    labels = tmp_path / "labels" / "a clip.txt"
    labels.parent.mkdir()
    labels.write_text("valence,arousal\n" + "".join(f"{valence},{arousal}\n" for valence, arousal in rows))
    scores = main(Evaluate(task="va", predictions=result.parent / form, labels=labels.parent))
    assert scores["score"] == pytest.approx(1, abs=1e-3) and scores["frames"] == 60
    assert "17 frames without a face" in capsys.readouterr().out


def test_warnings_follow_from_the_clip(result, heads):
    models = load_models(heads)
    facts = facts_of(read_table(result / "predictions.parquet"))
    assert (facts.frames, facts.people) == (60, 1) and facts.with_face == facts.with_main_person == 43 / 60
    assert 55 < facts.face_size < 65
    said = " ".join(warnings_of(models, facts, ["damaged packet"]))
    assert "drawn faces" in said and "72% of the frames" in said and "damaged packet" in said
    assert "repeating the nearest face" in said and "30 per second are assumed" not in said


def test_heads_that_see_one_frame_fill_no_gaps(encoder, result, tmp_path):
    models = load_models([make_head(tmp_path / "va", "va", [encoder], architecture=replace(ARCHITECTURE, window=1))])
    facts = facts_of(read_table(result / "predictions.parquet"))
    said = " ".join(warnings_of(models, facts, []))
    assert "in only 72% of the frames." in said and "repeating the nearest face" not in said


def test_an_assumed_clock_is_said(heads, tmp_path, drawn_detector):
    (tmp_path / "frames").mkdir()
    for number in range(1, 7):
        Image.new("RGB", (160, 120), (20, 20, 20)).save(tmp_path / "frames" / f"{number:05}.png")
    Predict(clips=(tmp_path / "frames",), heads=(heads[0],), out=tmp_path / "out").run()
    warnings = json.loads((tmp_path / "out" / "frames" / HEADER).read_text())["warnings"]
    assert sum("30 per second are assumed" in text for text in warnings) == 1


def test_a_bad_clip_does_not_stop_the_others(clip, heads, tmp_path, drawn_detector, capsys):
    bad = tmp_path / "text.mp4"
    bad.write_text("no video at all\n" * 100)
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    with pytest.raises(UserError, match=r"2 of 3 clips could not be predicted.*No such file"):
        Predict(clips=(bad, clips, clip), heads=(heads[0],), out=tmp_path / "out", annotate=False).run()
    assert (tmp_path / "out" / "a clip" / HEADER).exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a clip"]  # nothing half-written


def test_clips_of_one_name_are_told_apart(clip, heads, tmp_path, drawn_detector, capsys):
    days = [tmp_path / day / "clip.mp4" for day in ("monday", "tuesday")]
    for place in days:
        place.parent.mkdir()
        place.symlink_to(clip)
    Predict(clips=tuple(days), heads=(heads[0],), out=tmp_path / "out", annotate=False).run()
    said = capsys.readouterr().out.splitlines()
    folders = sorted((tmp_path / "out").iterdir())
    assert len(folders) == 2
    for folder, place in zip(folders, days, strict=True):
        assert any(f"{folder} ({place}): 60 frames" in line for line in said)


@pytest.mark.parametrize("kind", [OSError, av.error.OSError])
def test_a_full_disk_ends_the_command_and_the_same_one_continues(
    kind, clip, heads, tmp_path, drawn_detector, monkeypatch
):
    def full(*_args, **_kwargs):
        raise kind(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("wildaffect.inference.prediction.annotate_clip", full)
        with pytest.raises(OSError, match="No space left"):
            Predict(clips=(clip,), heads=(heads[0],), out=tmp_path / "out").run()
    monkeypatch.setattr(Predictor, "detector", None)  # finding faces again would fail
    Predict(clips=(clip,), heads=(heads[0],), out=tmp_path / "out").run()
    assert (tmp_path / "out" / "a clip" / HEADER).exists()


def test_a_clip_that_cannot_be_drawn_leaves_nothing_and_can_be_tried_again(
    clip, heads, tmp_path, drawn_detector, monkeypatch
):
    def broken(*_args, **_kwargs):
        raise av.error.InvalidDataError(1, "Invalid data found")

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr("wildaffect.inference.prediction.annotate_clip", broken)
            with pytest.raises(UserError, match="Invalid data found"):
                Predict(clips=(clip,), heads=(heads[0],), out=tmp_path / "out").run()
        assert not (tmp_path / "out").exists() or not any((tmp_path / "out").rglob("*.*"))
        (tmp_path / "out" / "a clip").mkdir(parents=True, exist_ok=True)
    Predict(clips=(clip,), heads=(heads[0],), out=tmp_path / "out").run()
    assert (tmp_path / "out" / "a clip" / HEADER).exists()


def test_other_files_are_not_overwritten(clip, heads, tmp_path, drawn_detector):
    (tmp_path / "a clip").mkdir()
    (tmp_path / "a clip" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="other files"):
        Predict(clips=(clip,), heads=(heads[0],), out=tmp_path).run()
    assert (tmp_path / "a clip" / "thesis.txt").read_text() == "mine"


def test_a_killed_run_keeps_the_faces(clip, heads, tmp_path, drawn_detector, monkeypatch):
    def killed(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "predict_faces", killed)
        with pytest.raises(KeyboardInterrupt):
            Predict(clips=(clip,), heads=(heads[0],), out=tmp_path).run()
    assert (tmp_path / "a clip" / ".work" / "faces" / "faces.json").exists()
    monkeypatch.setattr(Predictor, "detector", None)  # finding faces again would fail
    Predict(clips=(clip,), heads=(heads[0],), out=tmp_path, annotate=False).run()
    assert (tmp_path / "a clip" / HEADER).exists()


def test_small_faces_of_an_interrupted_run_do_not_serve_a_larger_encoder(
    clip, heads, tmp_path, drawn_detector, monkeypatch
):
    stores = []
    predict_faces = Predictor.predict_faces

    def watched(self, store, *args):
        stores.append((store.image_size, decode_jpeg(store.jpeg(int(np.flatnonzero(store.valid)[0]))).shape))
        if len(stores) == 1:
            raise KeyboardInterrupt
        return predict_faces(self, store, *args)

    monkeypatch.setattr(Predictor, "predict_faces", watched)
    place = tmp_path / "large" / "encoder"
    large = make_head(tmp_path / "va", "va", [(place, make_encoder(place, size=224))])
    with pytest.raises(KeyboardInterrupt):
        Predict(clips=(clip,), heads=(heads[0],), out=tmp_path / "out").run()
    Predict(clips=(clip,), heads=(large,), out=tmp_path / "out", annotate=False).run()
    assert stores == [(112, (112, 112, 3)), (224, (224, 224, 3))]


def test_a_clip_that_starts_at_an_hour_has_no_hour_of_nothing(tmp_path, heads, drawn_detector):
    """In the annotated video; the table keeps the time stamps."""
    times = [3_600_000 + 40 * n for n in range(50)]
    clip = write_clip(tmp_path / "late.mkv", times, dark=range(25), sound="aac", beep=3601.0, first=3_600_000)
    Predict(clips=(clip,), heads=(heads[0],), out=tmp_path / "out").run()
    made = tmp_path / "out" / "late"
    assert read_table(made / "predictions.parquet")["time_s"][0].as_py() == 3600
    with av.open(str(made / "annotated.mp4")) as container:
        assert 1.9 < container.duration / 1e6 < 2.2
        bright = [f.time for f in container.decode(video=0) if f.to_ndarray(format="rgb24")[:, :-260].max() > 150]
    with av.open(str(made / "annotated.mp4")) as container:
        parts = [(part.time, np.abs(part.to_ndarray()).max(axis=0)) for part in container.decode(audio=0)]
    loud = [time + int(np.argmax(wave > 0.25)) / 16_000 for time, wave in parts if (wave > 0.25).any()]
    assert abs(bright[0] - 1.0) < 0.001 and abs(loud[0] - 1.0) < 0.02


def test_wrong_use_from_the_command_line(tmp_path):
    done = processes.run("wildaffect/cli.py", "predict", tmp_path / "none.mp4", "--out", tmp_path / "out")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "does not exist" in done.stderr


def test_a_folder_that_lost_a_file_is_made_again_and_leftovers_go(tmp_path, capsys):
    facts = Facts(
        frames=1, seconds=0.0, rate=0.0, people=1, with_face=1.0, with_main_person=1.0, interpolated=0.0, face_size=50.0
    )
    folder, parents, config = tmp_path / "a", {"clip": "c", "heads": "h"}, {"annotate": True}
    (folder / WORK).mkdir(parents=True)
    (folder / "predictions.csv").write_text("frame\n1\n")
    files = {"predictions.csv": file_hash(folder / "predictions.csv")}
    fields = {"facts": facts.as_dict(), "warnings": [], "files": files}
    write_header(folder, HEADER, kind=KIND, schema=SCHEMA, made_by="predict", config=config, parents=parents, **fields)
    assert finished(folder, parents, config) and not (folder / WORK).exists()
    assert "was left by an interrupted run: removed" in capsys.readouterr().out
    assert finished(folder, parents, {"annotate": False}) is None
    (folder / "predictions.csv").write_text("frame\n2\n")
    assert finished(folder, parents, config) is None
    assert "predictions.csv was deleted or changed: the clip is predicted again" in capsys.readouterr().out
    (folder / "predictions.csv").unlink()
    assert finished(folder, parents, config) is None
