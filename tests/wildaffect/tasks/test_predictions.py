import numpy as np
import pytest

from checkpoints.artifact import file_hash, write_sealed
from checkpoints.errors import UserError
from wildaffect.tasks import TASKS
from wildaffect.tasks.predictions import (
    HEADER,
    KIND,
    WORK,
    PredictionTrack,
    read_predictions,
    value_columns,
    write_predictions,
)


def track(length=4, first=1, tasks=("va", "expr", "au")):
    rng = np.random.default_rng(length)
    frames = np.arange(first, first + length)
    values = {name: rng.random((length, TASKS[name].out_dim)).astype(np.float32) for name in tasks}
    return PredictionTrack(frames, frames / 25, frames % 2 == 0, values)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_round_trip(tmp_path, suffix):
    tracks = {"": track(5), "left": track(3, first=2)}
    write_predictions(tmp_path / f"my.video.{suffix}", tracks)
    for source in (tmp_path, tmp_path / f"my.video.{suffix}"):
        read = read_predictions(source)
        assert list(read) == ["my.video", "my.video_left"]
        for subject, expected in tracks.items():
            found = read["my.video" + (f"_{subject}" if subject else "")]
            for part in ("frames", "time_s", "face"):
                np.testing.assert_allclose(getattr(found, part), getattr(expected, part))
            for name, values in expected.values.items():
                np.testing.assert_allclose(found.values[name], values, rtol=1e-6)


def test_columns_are_the_designs(tmp_path):
    import pyarrow.parquet as pq

    write_predictions(tmp_path / "v.parquet", {"": track(2)})
    names = pq.read_table(tmp_path / "v.parquet").column_names
    assert names[:6] == ["subject", "frame", "time_s", "face", "valence", "arousal"]
    assert names[6] == "p_Neutral" and names[-1] == "p_AU26" and len(names) == 6 + 8 + 12
    assert value_columns(TASKS["va"]) == ("valence", "arousal")


def test_faults(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_predictions(tmp_path / "none.parquet")
    with pytest.raises(UserError, match="holds no prediction tables"):
        read_predictions(tmp_path)
    (tmp_path / "a.csv").write_text("frame,happiness\n1,2\n")
    with pytest.raises(UserError, match="is not a prediction table"):
        read_predictions(tmp_path)
    (tmp_path / "a.csv").write_text("frame,valence,arousal\n1,0,0\n2,0,0\n1,0,0\n")
    with pytest.raises(UserError, match="frame 1 is predicted twice"):
        read_predictions(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("frame,valence,arousal\n2,0.5,0\n1,,\n")
    read = read_predictions(tmp_path / "a.csv")["a"]
    assert read.frames.tolist() == [1, 2] and np.isnan(read.values["va"][0]).all() and read.values["va"][1, 0] == 0.5
    with pytest.raises(UserError, match=r"\.parquet or \.csv"):
        write_predictions(tmp_path / "a.txt", {"": track()})


def test_what_predict_leaves_is_read_by_the_names_of_its_folders(tmp_path):
    """One folder per clip, with the table in both formats; frames without a face have no values."""
    for clip in ("one", "two"):
        (tmp_path / clip).mkdir()
        lines = ["frame,time_s,subject,face,valence,arousal"]
        lines += [
            f"{n},{n / 25},,{'true' if n in (2, 3, 6) else 'false'}" + (f",0.{n},0" if n in (2, 3, 6) else ",,")
            for n in range(1, 8)
        ]
        (tmp_path / clip / "predictions.csv").write_text("\n".join(lines) + "\n")
    track = read_predictions(tmp_path / "one")["one"]
    np.testing.assert_allclose(track.values["va"][:, 0], [0.2, 0.2, 0.3, 0.3, 0.6, 0.6, 0.6], atol=1e-6)
    assert track.carried == 4
    write_predictions(tmp_path / "one" / "predictions.parquet", {"": track})
    found = read_predictions(tmp_path)
    assert sorted(found) == ["one", "two"] and found["one"].values["va"].shape == (7, 2)
    (tmp_path / "two.csv").write_text((tmp_path / "two" / "predictions.csv").read_text())
    with pytest.raises(UserError, match="two tables of two"):
        read_predictions(tmp_path)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("how", ["deleted", "changed"])
def test_tables_that_are_not_what_predict_left_are_refused(tmp_path, suffix, how):
    clip = tmp_path / "clip"
    for ending in ("csv", "parquet"):
        write_predictions(clip / f"predictions.{ending}", {"": track()})
    files = {path.name: file_hash(path) for path in clip.iterdir()}
    write_sealed(clip / HEADER, {"kind": KIND, "files": files | {"report.html": "missing, which does not matter"}})
    sources = (tmp_path, clip, clip / "predictions.csv")
    assert all(list(read_predictions(source)) == ["clip"] for source in sources)
    table = clip / f"predictions.{suffix}"
    table.unlink()
    if how == "changed":
        write_predictions(table, {"": track(5)})
    for source in sources:
        with pytest.raises(UserError, match=rf"predictions\.{suffix} (cannot be read|was changed)|does not exist"):
            read_predictions(source)
    (clip / HEADER).unlink()
    (clip / WORK).mkdir()
    with pytest.raises(UserError, match="clip is not finished: run `wildaffect predict` again"):
        read_predictions(tmp_path)
