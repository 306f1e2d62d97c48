import json
import tempfile
import warnings
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from checkpoints.errors import UserError
from tests.wildaffect.inference.test_clip import TIMES, BrightSquare, write_clip
from tests.wildaffect.inference.test_inputs import drawn
from wildaffect.inference.predictor import Predictor
from wildaffect.inference.table import COLUMNS


@pytest.fixture(scope="module")
def predictor(heads):
    made = Predictor(heads, device="cpu")
    made.detector = BrightSquare()
    return made


@pytest.fixture(scope="module")
def result(predictor, tmp_path_factory):
    clip = write_clip(tmp_path_factory.mktemp("clip") / "a clip.mp4", TIMES[:12], dark=range(9, 12))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return predictor.predict(clip, progress=False)


def test_it_is_a_table(result):
    frame = result.to_pandas()
    assert len(result) == len(frame) == 12 and list(frame.columns) == list(COLUMNS)
    assert frame.face.sum() == 9 and frame.valence.notna().sum() == 9


def test_it_names_its_heads_and_their_scores_wherever_it_is_written(result, tmp_path):
    result.save(tmp_path / "rows.csv")
    result.save(str(tmp_path / "rows.parquet"))
    beside = json.loads((tmp_path / "rows.json").read_text())
    inside = json.loads(pq.read_schema(tmp_path / "rows.parquet").metadata[b"wildaffect"])
    assert inside == beside == result.metadata == result.to_pandas().attrs
    assert [head["name"] for head in inside["heads"]] == ["va", "expr", "au"]
    assert inside["heads"][0]["scores"]["va"] == {"score": 0.4, "chance": 0.1, "videos": 2}
    assert inside["clip"] == "a clip" and "drawn faces" in inside["warnings"][0]
    with pytest.raises(UserError, match=r"rows\.xlsx"):
        result.save(tmp_path / "rows.xlsx")


def test_plot_video_and_report(result, tmp_path):
    result.plot().savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="no subject '2'"):
        result.plot("2")
    with av.open(str(result.save_video(tmp_path / "drawn.mp4"))) as container:
        assert sum(1 for _ in container.decode(video=0)) == 12
    page = result.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Peaks: person 1" in page and "data:image/jpeg" in page


def test_what_is_no_file_has_no_video(predictor):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frames = predictor.predict(drawn(4), fps=25, progress=False)
    with pytest.raises(UserError, match="predict a video file"):
        frames.save_video("out.mp4")


def test_how_it_looks(result):
    assert repr(result).startswith("<Prediction 'a clip': 12 frames in 0.4 s, 1 person; mean valence")
    assert "VA synthetic" in repr(result)
    shown = result._repr_html_()
    assert "<table" in shown and "data:image/png" in shown and "drawn faces" in shown


def test_warnings_and_bars(predictor, capsys):
    with pytest.warns(UserWarning, match="drawn faces") as caught:
        predictor.predict(drawn(4), fps=25)
    assert [said.filename for said in caught if "drawn faces" in str(said.message)] == [__file__]
    assert "frames: finding faces" in capsys.readouterr().err
    with pytest.warns(UserWarning):
        predictor.predict(drawn(4), fps=25, progress=False)
    assert capsys.readouterr().err == ""


def test_a_bad_clip_among_others_is_left_out_with_a_warning(predictor, tmp_path):
    write_clip(tmp_path / "good.mp4", TIMES[:6])
    (tmp_path / "bad.mp4").write_text("no video at all\n" * 100)
    paths = [tmp_path / "bad.mp4", tmp_path / "good.mp4"]
    with pytest.warns(UserWarning, match=r"left out: .*bad\.mp4"):
        assert [part.clip for part in predictor.predict(paths, progress=False)] == ["good"]
    with pytest.raises(UserError, match=r"bad\.mp4"):
        predictor.predict(paths[0], progress=False)


def test_faces_leave_the_disk_with_the_prediction(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = predictor.predict(drawn(4), fps=25, progress=False)
        assert np.isfinite(kept.table["valence"].to_numpy()).all() and list(tmp_path.iterdir())
        del kept
        assert not list(tmp_path.iterdir())
        with pytest.raises(UserError):
            predictor.predict([np.zeros(3)], fps=25, progress=False)
    assert not list(Path(tmp_path).iterdir())
