import json
import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from checkpoints.errors import UserError
from temporal.smoothing import Smoothing
from tests.wildaffect.inference.conftest import ARCHITECTURE, make_head
from tests.wildaffect.inference.test_clip import TIMES, BrightSquare, write_clip
from tests.wildaffect.inference.test_inputs import drawn
from wildaffect.cli import Live
from wildaffect.inference.live import camera_pictures, newest
from wildaffect.inference.predictor import Predictor
from wildaffect.inference.table import COLUMNS, matrix
from wildaffect.tasks import AUS

FRAMEWISE = replace(ARCHITECTURE, tcn_channels=(), layers=0, window=4)
CAUSAL = replace(ARCHITECTURE, tcn_causal=True, attention_causal=True)
ENDING = replace(FRAMEWISE, layers=1, readout="last")
RAW = {"smoothing": Smoothing()}


def predictor_of(path, encoder, architecture, task="joint", **options):
    predictor = Predictor(make_head(path / "run", task, [encoder], architecture=architecture, **options), device="cpu")
    predictor.detector = BrightSquare()
    return predictor


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    # While nobody is there, every fourth frame is searched: the face comes back in one of these.
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", TIMES[:30], dark=range(12, 24))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("architecture", [FRAMEWISE, CAUSAL, ENDING], ids=["framewise", "causal", "last"])
def test_it_says_what_the_finished_clip_says(encoder, clip, tmp_path, architecture):
    predictor = predictor_of(tmp_path, encoder, replace(architecture, window=40), **RAW)
    table = predictor.predict(clip, progress=False).table
    rows = list(predictor.stream(clip))
    assert list(rows[0]) == table.column_names == list(COLUMNS)
    for name in ("subject", "frame", "time_s", "face", "x1", "y2"):
        assert [row[name] for row in rows] == table[name].to_pylist(), name
    seen = [row["face"] for row in rows]
    assert seen == [True] * 12 + [False] * 12 + [True] * 6
    names = ["valence", "arousal", "p_Fear", "p_AU12"]
    mine = np.array([[row[name] for name in names] for row in rows], float)
    alike = 12 if architecture is ENDING else 30  # windows that end at a frame fill gaps with later ones
    assert np.allclose(mine[:alike], matrix(table, names)[:alike], atol=2e-4, equal_nan=True)
    assert [row["expression"] for row in rows][:alike] == table["expression"].to_pylist()[:alike]
    assert [row[AUS[0]] for row in rows][:alike] == table[AUS[0]].to_pylist()[:alike]


def test_a_row_comes_before_the_next_frame_is_asked_for(encoder, tmp_path):
    predictor, asked = predictor_of(tmp_path, encoder, FRAMEWISE), []

    def camera():
        for number, picture in enumerate(drawn(6)):
            asked.append(number)
            yield picture

    for number, row in enumerate(predictor.stream(camera())):
        assert asked[-1] == number and row["frame"] == number + 1 and row["valence"] is not None
    assert len(asked) == 6


def test_smoothing_sees_only_the_past(encoder, tmp_path):
    frames = drawn(12)
    smooth = predictor_of(tmp_path / "a", encoder, FRAMEWISE)
    whole = [row["valence"] for row in smooth.stream(frames, fps=25)]
    assert [row["valence"] for row in smooth.stream(frames[:6], fps=25)] == whole[:6]
    raw = [row["valence"] for row in predictor_of(tmp_path / "b", encoder, FRAMEWISE, **RAW).stream(frames, fps=25)]
    assert 0 < np.std(np.diff(whole)) < np.std(np.diff(raw))


@pytest.mark.parametrize(
    "architecture",
    [ARCHITECTURE, replace(FRAMEWISE, deviation=True), replace(CAUSAL, attention_causal=False)],
    ids=["ours", "deviation", "attention"],
)
def test_heads_that_look_ahead_are_refused(encoder, tmp_path, architecture):
    with pytest.raises(UserError, match=r"recipe demo\) predicts a frame from later ones.*ours-causal"):
        predictor_of(tmp_path, encoder, architecture).stream([])


def test_other_refusals(encoder, tmp_path):
    predictor = predictor_of(tmp_path, encoder, FRAMEWISE, task="va")
    with pytest.raises(UserError, match="frame 1 is float64"):
        list(predictor.stream([np.zeros((4, 4, 3))]))
    with pytest.raises(UserError, match="has its own times"):
        predictor.stream("clip.mp4", fps=3)
    with pytest.raises(UserError, match="does not exist"):
        predictor.stream(tmp_path / "none.mp4")
    predictor.models.adapt = "person"
    with pytest.raises(UserError, match="needs the whole clip"):
        predictor.stream([])
    with pytest.raises(UserError, match="camera 99 cannot be opened"):
        next(camera_pictures(99))


def test_memory_does_not_grow(encoder, tmp_path):
    predictor, frames = predictor_of(tmp_path, encoder, FRAMEWISE, task="va"), drawn(2)
    rows = predictor.stream(frames[number % 2] for number in range(10_000))
    held = []
    tracemalloc.start()
    for row in rows:
        if row["frame"] in (20, 60):
            held.append(tracemalloc.get_traced_memory()[0])
        if len(held) == 2:
            break
    tracemalloc.stop()
    assert held[1] - held[0] < 200_000


def test_a_camera_that_is_faster_is_not_waited_for():
    done = threading.Event()

    def camera():
        yield from range(100)
        done.set()

    pictures = newest(camera())
    next(pictures)
    assert done.wait(10)
    assert list(pictures) in ([99], [])  # at most the newest of those that came meanwhile


def test_the_command_writes_lines_of_json(encoder, clip, tmp_path, monkeypatch, capsys):
    run = make_head(tmp_path / "run", "va", [encoder], architecture=FRAMEWISE)
    monkeypatch.setattr(Predictor, "detector", BrightSquare())
    Live(clip=clip, heads=(run,)).run()
    written = capsys.readouterr()
    rows = [json.loads(line) for line in written.out.splitlines()]
    assert [row["frame"] for row in rows] == list(range(1, 31))
    assert rows[0]["face"] and -1 <= rows[0]["valence"] <= 1 and rows[13]["valence"] is None
    said = (
        "warning: Trained on rendered or drawn faces",
        "Valence and arousal: synthetic",
        "score 0.400",
        "not be used",
    )
    for text in said:
        assert text in written.err
    with pytest.raises(UserError, match="does not exist"):
        Live(clip=tmp_path / "none.mp4").run()
    with pytest.raises(UserError, match="is not a file"):
        Live(clip=tmp_path).run()
    (tmp_path / "text.mp4").write_text("no video at all\n" * 100)
    with pytest.raises(UserError, match=r"text\.mp4: "):
        Live(clip=tmp_path / "text.mp4", heads=(run,)).run()
