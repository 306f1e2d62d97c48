"""The checks of action units: made-up answers with known scores, and a whole run on drawn faces."""

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from benchmarks import action_units
from benchmarks.action_units import Answers
from benchmarks.au_labels import COLUMNS, HandLabels
from checkpoints.errors import UserError
from tests.drawn_data import face, write_data
from tests.wildaffect.inference.conftest import make_encoder, make_head
from wildaffect.tasks import AUS, EXPRESSIONS


def answers(truth, **values):
    """Answers of one half for all action units but those given, with a threshold of .5."""
    table = np.full((len(truth), 12), 0.5)
    for name, column in values.items():
        table[:, AUS.index(name)] = column
    classes = np.array([EXPRESSIONS.index(name) for name in truth])
    return Answers(np.arange(len(truth)), table, table > 0.5, classes)


def test_emotions_are_compared_with_neutral_and_with_all_that_lack_the_unit():
    truth = ["Neutral"] * 4 + ["Happiness"] * 2 + ["Surprise"] * 2 + ["Anger", "Other"]
    smile = [0.1, 0.2, 0.6, 0.9, 0.7, 0.8, 0.95, 0.95, 0.1, 0.99]
    result = action_units.check_emotions(answers(truth, AU12=smile))
    of_happy = result["prototypes"]["AU12"]["Happiness"]
    assert of_happy["faces"] == 2
    assert of_happy["neutral"] == 6 / 8  # above three of four
    assert of_happy["others"] == 8 / 14  # not above the two surprised ones; contempt does not count
    assert list(result["prototypes"]["AU12"]) == ["Happiness"]
    assert result["prototypes"]["AU15"]["Sadness"]["neutral"] is None  # no sad face
    assert result["specificity"] == {"AU12 on Surprise": 1.0, "AU4 on Surprise": 0.5, "AU26 on Anger": 0.5}
    assert result["false_alarms"]["AU12"] == 0.5 and result["false_alarms"]["AU1"] == 0
    assert result["points"]["AU12"] == {"emotion": "Happiness", "found": 0.8, "threshold": 0.7, "false_alarms": 0.25}


def test_a_threshold_finds_at_least_the_share_asked_for():
    happy = np.linspace(0.1, 1, 10)
    truth = ["Neutral"] * 10 + ["Happiness"] * 10
    point = action_units.check_emotions(answers(truth, AU12=[*happy, *happy]))["points"]["AU12"]
    assert (happy >= point["threshold"]).mean() == 0.8
    assert point["false_alarms"] == 0.8


def test_smiles_are_paired_with_the_same_persons_neutral_face():
    truth = ["Neutral", "Happiness"] * 3 + ["Neutral"]
    smile = [0.1, 0.2, 0.5, 0.6, 0.9, 0.7, 0.0]
    result = action_units.check_smiles(answers(truth, AU12=smile), np.array(["a", "a", "b", "b", "c", "c", "d"]))
    assert result["people"] == 3  # the fourth never smiles
    assert result["paired"]["AU12"] == pytest.approx(2 / 3)
    assert result["auc"]["AU12"] == pytest.approx(5 / 9)
    held = action_units.check_smiles(answers(truth, AU12=smile), np.array(["a", "a", "b", "b", "", "", ""]))
    assert (held["people"], held["paired"]["AU12"]) == (2, 1)
    nobody = action_units.check_smiles(answers(truth, AU12=smile), np.array([""] * 7))
    assert (nobody["people"], nobody["paired"], nobody["auc"]["AU12"]) == (0, None, None)


def hand_labels(first, second, people=None):
    """Hand labels whose AU12 is coded as given; of AU4 every face has it; all others are absent."""
    passes = np.zeros((2, len(first), 12))
    passes[:, :, AUS.index("AU12")] = [first, second]
    passes[:, :, AUS.index("AU4")] = 1
    count = len(first)
    return HandLabels([""] * count, [0] * count, np.array(people or range(count)).astype(str), np.array([""]), passes)


def test_scores_are_over_the_faces_on_which_the_passes_agree():
    rng = np.random.default_rng(3)
    truth = rng.random(80) < 0.4
    value = np.where(truth, 0.6, 0.4) + rng.normal(0, 0.2, 80)
    first, second = truth.astype(float), truth.astype(float)
    second[:10] = 1 - second[:10]
    second[10] = np.nan
    result = action_units.check_hand_labels(answers(["Neutral"] * 80, AU12=value), hand_labels(first, second))
    smile = result["AU12"]
    code, seen = truth[11:], value[11:]
    assert (smile["judged"], smile["present"]) == (69, code.sum())
    assert smile["auc"] == pytest.approx(roc_auc_score(code, seen))
    assert smile["f1"] == pytest.approx(f1_score(code, seen > 0.5))
    assert smile["f1_always"] == pytest.approx(f1_score(code, np.ones(69)))
    for key in ("auc", "f1"):
        low, high = smile[f"{key}_95"]
        assert low < smile[key] < high
    assert smile["fails"] == []
    assert result["AU4"]["auc"] is None and result["AU4"]["fails"] == ["AUC not defined: all faces have it, or none"]
    assert result["AU1"]["f1"] is None
    assert result["AU1"]["fails"] == ["fewer than 20 present", "AUC not defined: all faces have it, or none"]
    assert action_units.reasons(20, 0.74) == ["AUC below 0.75"]


def test_many_frames_of_one_person_do_not_narrow_an_interval():
    truth = np.array([1.0, 1, 1, 0, 0, 0] * 2)
    value = np.array([0.9, 0.7, 0.3, 0.1, 0.4, 0.6] * 2)

    def width(copies, people):
        codes = hand_labels(np.repeat(truth, copies), np.repeat(truth, copies), people)
        scored = action_units.check_hand_labels(
            answers(["Neutral"] * 12 * copies, AU12=np.repeat(value, copies)), codes
        )
        return np.ptp(scored["AU12"]["auc_95"])

    people = list(range(12))
    assert width(8, np.repeat(people, 8).tolist()) == pytest.approx(width(1, people))
    assert width(8, None) < 0.8 * width(1, people)


def test_a_face_that_was_not_found_does_not_shift_the_others():
    truth, value = np.array([1.0, 0, 1, 0]), np.array([0.9, 0.1, 0.8, 0.2])
    given = answers(["Neutral"] * 3, AU12=value[1:])
    moved = Answers(np.array([1, 2, 3]), given.values, given.named, given.truth)
    smile = action_units.check_hand_labels(moved, hand_labels(truth, truth))["AU12"]
    assert (smile["judged"], smile["present"], smile["auc"]) == (3, 1, 1.0)


def test_a_whole_run_on_drawn_faces(tmp_path, capsys):
    pytest.importorskip("facenet_pytorch")
    data = tmp_path / "data"
    data.mkdir()
    write_data(data)
    (data / "videos").mkdir()
    frames = [face(seed, 160) for seed in (70, 71)]
    frames[0].save(data / "videos" / "clip.gif", save_all=True, append_images=frames[1:], duration=40)
    rows = [",".join(COLUMNS)]
    for number in (1, 2):
        rows += [f"f1,london,60.jpg,,london_60,held,{number}{',0' * 12}"]
        rows += [f"f2,videos,clip.gif,2,drawn,,{number}{',1' * 12}"]
    (tmp_path / "codes.csv").write_text("\n".join(rows) + "\n")
    place = tmp_path / "encoder"
    head = make_head(tmp_path / "au", "au", [(place, make_encoder(place))])
    config = action_units.ActionUnits(data, head, tmp_path / "codes.csv", 1, tmp_path / "result.json")
    result = action_units.main(config)
    assert json.loads(config.out.read_text())["hand_labels"] == result["hand_labels"]
    assert {name: part["faces"] for name, part in result["sets"].items()} == {
        "FER+ validation": 8,
        "muxspace val": 4,
        "London": 2,
    }
    assert [part["people"] for part in result["smiles"].values()] == [1, 1]
    assert result["clips"]["clip.gif"]["frames"] == 2
    assert (result["hand_labels"]["AU1"]["judged"], result["hand_labels"]["AU1"]["present"]) == (2, 1)
    assert result["heads"][0]["labels_are"] == "synthetic"
    said = capsys.readouterr().out
    assert "AU12" in said and "clip.gif" in said and "Not to be shipped: AU1 (fewer than 20 present" in said

    other = make_head(tmp_path / "va", "va", [(place, make_encoder(place))])
    with pytest.raises(UserError, match="no head for action units"):
        action_units.main(action_units.ActionUnits(data, other, tmp_path / "codes.csv"))
