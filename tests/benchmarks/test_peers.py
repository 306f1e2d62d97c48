"""The comparison with other tools, without any of them: programs of the tests' own answer in their place."""

import json

import numpy as np
import pytest

from benchmarks import peers
from checkpoints.errors import UserError
from tests.drawn_data import face, png, write_data
from wildaffect.tasks import EXPRESSIONS

FER = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
FACE_API = ["neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised"]


@pytest.mark.parametrize("classes", [FER, FACE_API])
def test_classes_of_peers_are_put_into_our_order(classes):
    wanted = {"angry": "Anger", "happy": "Happiness", "sad": "Sadness", "neutral": "Neutral"}
    wanted |= dict.fromkeys(["fear", "fearful"], "Fear") | dict.fromkeys(["disgust", "disgusted"], "Disgust")
    wanted |= dict.fromkeys(["surprise", "surprised"], "Surprise")
    answers = {"classes": classes, "probabilities": np.eye(7).tolist()}
    found = peers.in_our_order("peer", answers, 7)
    assert [EXPRESSIONS[number] for number in found.argmax(1)] == [wanted[name] for name in classes]
    assert not found[:, EXPRESSIONS.index("Other")].any()


@pytest.mark.parametrize(
    ("classes", "values", "count"),
    [
        (FER, [[1.0] * 7], 1),
        (FER, [[1.0, *[0.0] * 6]], 2),
        (FER[:6], [[1.0, *[0.0] * 6]], 1),
        (["cross"], [[1.0]], 1),
        (["unknown"], [[1.0]], 1),
    ],
)
def test_answers_of_another_form_are_refused(classes, values, count):
    with pytest.raises(UserError, match="peer"):
        peers.in_our_order("peer", {"classes": classes, "probabilities": values}, count)


def test_a_square_repeats_the_edges_of_the_picture():
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:, :, 0] = np.arange(60)
    inside = peers.square(picture, [20, 10, 40, 30], 0.0)
    assert inside.shape == (peers.SIDE, peers.SIDE, 3)
    assert (inside[0, 0, 0], inside[0, -1, 0]) == (20, 39)
    outside = peers.square(picture, [50, 0, 70, 40], 0.0)  # from 40 to 80: the longer side counts
    assert (outside[0, 0, 0], outside[0, -1, 0]) == (40, 59)
    assert peers.square(picture, [20, 10, 40, 30], 0.5)[0, 0, 0] == 10


def test_an_answer_outside_the_classes_of_the_set_is_wrong_and_a_face_not_found_too():
    truth = np.array([0, 0, 4, 4])
    values = np.eye(8)[[0, 7, 4, 4]]
    values[3] = 0
    scores = peers.compare(values, truth, "uniform", None)["free"]
    assert scores["accuracy"] == 0.5
    assert scores["f1"] == pytest.approx({"Neutral": 2 / 3, "Happiness": 2 / 3})
    assert scores["accuracy_95"][0] <= 0.5 <= scores["accuracy_95"][1]


def test_calibration_takes_out_what_a_net_prefers():
    """A net that shifts its logits towards Neutral: 0.6 of it is below its mean, so it means Happiness."""
    values = np.zeros((4, 8))
    values[:, 0], values[:, 4] = [0.9, 0.9, 0.6, 0.6], [0.1, 0.1, 0.4, 0.4]
    truth = np.array([0, 0, 4, 4])
    trained = np.array([0.9, 0, 0, 0, 0.1, 0, 0, 0])
    scores = peers.compare(values, truth, "uniform", trained)
    assert scores["free"]["accuracy"] == 0.5
    assert scores["declared"]["accuracy"] == 1.0
    assert scores["em"]["f1"]["Happiness"] > 0.5  # more happy faces than in training
    assert "em" not in peers.compare(values, truth, "uniform", None)


def test_a_declared_prior_is_followed(tmp_path):
    (tmp_path / "prior.json").write_text(json.dumps({"Neutral": 0.999, "Happiness": 0.001}))
    values = np.zeros((2, 8))
    values[:, 0], values[:, 4] = [0.6, 0.4], [0.4, 0.6]
    scores = peers.compare(values, np.array([0, 0]), str(tmp_path / "prior.json"), None)
    assert (scores["free"]["accuracy"], scores["declared"]["accuracy"]) == (0.5, 1.0)


def test_class_folders_and_the_layout_of_ferplus_are_read(tmp_path):
    for name, seed in (("happy", 1), ("Neutral", 2), ("unknown", 3)):
        (tmp_path / "own" / name).mkdir(parents=True)
        (tmp_path / "own" / name / "a.png").write_bytes(png(face(seed, 64)))
    (own,) = peers.labelled_faces(tmp_path / "own")
    assert [EXPRESSIONS[number] for number in own.truth] == ["Neutral", "Happiness"]
    assert own.pictures == [png(face(2, 64)), png(face(1, 64))]

    (tmp_path / "faces").mkdir()
    write_data(tmp_path / "faces")
    ferplus, muxspace = peers.labelled_faces(tmp_path / "faces")
    seeds = [3, *range(41, 48)]
    assert ferplus.pictures == [png(face(seed, 48).convert("L")) for seed in seeds]
    assert ferplus.truth.tolist() == [4 if seed % 2 else 0 for seed in seeds]
    assert muxspace.truth.tolist() == [0, 4, 0, 4]


def test_folders_that_say_no_class_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no labelled faces"):
        peers.labelled_faces(tmp_path)
    (tmp_path / "holiday").mkdir()
    with pytest.raises(UserError, match="holiday: the name is no expression: rename the folder") as raised:
        peers.labelled_faces(tmp_path)
    assert "--class-map" not in str(raised.value)


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("peer", peers.PEERS)
def test_a_peer_that_cannot_be_installed_says_why(peer, tmp_path, monkeypatch):
    for tool in ("uv", "npm"):
        program(tmp_path / "bin" / tool, "echo trying >&2; echo no such package >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert peers.install(peer, tmp_path / "environments").endswith("no such package")


def test_a_peer_is_asked_in_its_own_environment(tmp_path):
    answers = json.dumps({"classes": FER, "probabilities": [[0, 0, 0, 1, 0, 0, 0]] * 2})
    program(tmp_path / "fer" / "bin" / "python", f"test $(stat -c %s $2) = 75264 && echo '{answers}' > $4")
    crops = np.zeros((2, peers.SIDE, peers.SIDE, 3), np.uint8)
    assert peers.ask("fer", tmp_path, crops, tmp_path).argmax(1).tolist() == [4, 4]
    program(tmp_path / "fer" / "bin" / "python", "echo out of memory >&2; exit 1")
    with pytest.raises(UserError, match="fer failed: out of memory"):
        peers.ask("fer", tmp_path, crops, tmp_path)
