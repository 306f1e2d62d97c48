import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints.errors import UserError
from wildaffect.tasks import TASKS
from wildaffect.tasks.challenge import (
    FORMS,
    check_challenge_file,
    form_of,
    header,
    is_challenge_file,
    parts,
    read_challenge_file,
    read_example,
    write_challenge_file,
)


def write_example(path, form, locations):
    path.write_text(header(form) + "\n" + "".join(f"{location},-5\n" for location in locations))
    return path


def predictions(form, lengths, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: {id: TASKS[name].decode(rng.normal(size=(n, TASKS[name].out_dim))) for id, n in lengths.items()}
        for name in parts(form)
    }


@pytest.mark.parametrize("form", FORMS)
def test_round_trip_in_the_examples_order(tmp_path, form):
    locations = ["b_left/00002.jpg", "a.b/00010.jpg", "b_left/00001.jpg"]
    example = write_example(tmp_path / "example.txt", form, locations)
    decoded = predictions(form, {"b_left": 3, "a.b": 11, "other": 1})
    out = tmp_path / "out.txt"
    write_challenge_file(out, form, read_example(example), decoded)
    assert [line.split(",")[0] for line in out.read_text().splitlines()[1:]] == locations
    assert '"' not in out.read_text() and " " not in out.read_text()
    content = read_challenge_file(out, form)
    for name in parts(form):
        expected = np.stack([decoded[name]["b_left"][1], decoded[name]["a.b"][9], decoded[name]["b_left"][0]])
        np.testing.assert_allclose(content.values[name], expected, atol=1e-6)
    assert check_challenge_file(out, form, example) == 3


def test_the_forms_are_the_official_ones(tmp_path):
    example = write_example(tmp_path / "e.txt", "mtl", ["video45_1/00001.jpg"])
    decoded = {"va": {"video45_1": np.array([[0.5, -0.5]])}, "expr": {"video45_1": np.array([[4]])}}
    decoded["au"] = {"video45_1": np.array([[1, 0] * 6])}
    write_challenge_file(tmp_path / "out.txt", "mtl", read_example(example), decoded)
    assert (tmp_path / "out.txt").read_text() == (
        "image,valence,arousal,expression,aus\nvideo45_1/00001.jpg,0.500000,-0.500000,4,1,0,1,0,1,0,1,0,1,0,1,0\n"
    )
    assert header("expr") == "image_location,Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a/00001.jpg,1", "a/00003.jpg,1"], r"line 3: expected a/00002.jpg"),
        (["a/00001.jpg,1"], r"line 3: the file ends, but the example goes on with a/00002.jpg"),
        (["a/00001.jpg,1", "a/00002.jpg,1", "a/00003.jpg,1"], r"line 4: the example has no line for a/00003.jpg"),
        (["a/00001.jpg,1", "a/00001.jpg,1"], r"line 3: a/00001.jpg is listed twice"),
        (["a/00001.jpg,1", "a/00002.jpg"], r"line 3: expected an image location and 1 value"),
        (["a/00001.jpg,1", '"a/00002.jpg",1'], r"line 3: .*without quotes"),
        (["a/00001.jpg,1", "a/00002.jpg,-1"], r"line 3, column expression: -1 is not a valid expr prediction"),
        (["a/00001.jpg,1", "a/00002.jpg,[1]"], r"line 3, column expression: '\[1\]' is not a number"),
        (["a/00001.jpg,1", "00002.jpg,1"], r"line 3: expected an image location like"),
    ],
)
def test_the_first_offending_line_is_named(tmp_path, lines, message):
    example = write_example(tmp_path / "e.txt", "expr", ["a/00001.jpg", "a/00002.jpg"])
    (tmp_path / "f.txt").write_text("\n".join([header("expr"), *lines]) + "\n")
    with pytest.raises(UserError, match=message):
        check_challenge_file(tmp_path / "f.txt", "expr", example)


def test_pandas_header_is_refused(tmp_path):
    (tmp_path / "f.txt").write_text('image_location,"Neutral,Anger"\n')
    with pytest.raises(UserError, match="line 1: expected the header"):
        read_challenge_file(tmp_path / "f.txt", "expr")


def test_the_form_is_in_the_first_line_and_a_file_that_cannot_be_read_is_named(tmp_path):
    path = write_example(tmp_path / "e.txt", "au", ["a/00001.jpg"] * 3)
    assert form_of(path) == "au"
    path.write_bytes(b"\n" + path.read_bytes())
    with pytest.raises(UserError, match=r"line 1: .* is not a challenge file's header"):
        form_of(path)
    path.write_text(header("au"), encoding="utf-16")
    with pytest.raises(UserError, match="not UTF-8 text"):
        form_of(path)
    path.write_text("")
    with pytest.raises(UserError, match="line 1: '' is not a challenge file's header"):
        form_of(path)
    with pytest.raises(UserError, match="does not exist"):
        form_of(tmp_path / "none.txt")


def test_frames_without_a_finite_prediction_are_refused(tmp_path):
    example = read_example(write_example(tmp_path / "e.txt", "va", ["a/00001.jpg", "a/00003.jpg"]))
    for track, message in (
        (np.zeros((2, 2)), "no va prediction for frame 3 of a"),
        (np.array([[0, 0], [0, 0], [np.nan, 0]]), "frame 3 of a is not finite"),
    ):
        with pytest.raises(UserError, match=message):
            write_challenge_file(tmp_path / "o.txt", "va", example, {"va": {"a": track}})
    with pytest.raises(UserError, match="no va prediction"):
        write_challenge_file(tmp_path / "o.txt", "va", example, {"va": {}})
    assert not (tmp_path / "o.txt").exists()


@pytest.mark.parametrize(
    ("content", "known"),
    [
        (header("va"), True),
        ("\ufeff" + header("mtl") + "\r\n", True),
        ('image_location,"Neutral,Anger"', True),  # refused later, with its line
        ("subject,frame,valence,arousal", False),
        ("image_path,frame,valence,arousal", False),
        ("", False),
    ],
)
def test_a_challenge_file_is_known_by_its_first_line(tmp_path, content, known):
    (tmp_path / "f.csv").write_text(content, encoding="utf-8")
    assert is_challenge_file(tmp_path / "f.csv") == known
    (tmp_path / "f.parquet").write_bytes(b"PAR1\x00\xff\xfe")
    assert not is_challenge_file(tmp_path / "f.parquet") and not is_challenge_file(tmp_path / "none")


@given(st.lists(st.text(alphabet='a/0123.jpg,"-x\n', max_size=30), max_size=6))
@settings(max_examples=200)
def test_any_text_is_read_or_refused_with_a_line(tmp_path, lines):
    (tmp_path / "f.txt").write_text("\n".join([header("expr"), *lines]) + "\n")
    try:
        content = read_challenge_file(tmp_path / "f.txt", "expr")
    except UserError as error:
        assert "line " in str(error)
    else:
        assert len(content.values["expr"]) == len(content.index.locations)
