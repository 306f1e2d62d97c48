"""The lines of the starter weights' card, on the recorded results and on made-up ones."""

from pathlib import Path

import starter_card
from checkpoints.artifact import read_json
from wildaffect.tasks import AUS

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
WITHHELD = [name for name in AUS if name not in starter_card.SHOWN]


def test_weak_checks_are_in_the_table_and_marked():
    intro, table, unlike, failed = starter_card.unit_lines(read_json(RESULTS / "action_units.json"), WITHHELD)
    rows = {line.split("|")[1].strip(): line for line in table.splitlines()[2:]}
    assert [*rows] == list(starter_card.SHOWN) and "not by certified coders" in intro
    assert "Anger **.65** / **.57**" in rows["AU4"] and "Surprise **.78** / **.61**" in rows["AU1"]
    assert "Happiness **.82** / **.60**" in rows["AU25"] and "Disgust .92 / **.39**" in rows["AU10"]
    assert "| **.95** |" in rows["AU12"] and "| **.86** |" in rows["AU25"]
    assert "**.21** / .05 / **.48**" in rows["AU25"] and "**.09** / .01 / **.08**" in rows["AU1"]
    assert "AU12 on Surprise **.44**" in unlike and "AU4 on Surprise .18" in unlike
    assert "AU23 (fewer than 20 present" in failed and "AU12" not in failed


def test_emotions_of_few_faces_have_no_number():
    part = {"prototypes": {"AU1": {"Fear": {"faces": 1, "neutral": 0.9}, "Surprise": {"faces": 0, "neutral": None}}}}
    found = starter_card.emotions("AU1", {"FER+ validation": part, "muxspace val": part})
    assert found == {"Fear": ["-", "-"], "Surprise": ["-", "-"]}


def test_numbers_of_one_training_are_in_no_other_card():
    assert not any("Action units" in line for line in starter_card.data_lines(units=False))
    general = " ".join(starter_card.data_lines(units=True))
    assert "AU1 .15, AU4 .20" in general and "AUC" not in general
    units, renders = (read_json(RESULTS / f"{name}.json") for name in ("action_units", "renders_only"))
    assert "AU1 .67 (with them .87), AU4 .59 (with them .87)" in starter_card.renders_line(units, renders)


def test_steadiness_is_told_by_kind_of_picture():
    part = {"faces": 200, "found": 1.0, "median_change": 0.01, "within_0.1": 0.92}
    line = starter_card.steady_line({"pictures": "own", "48 px": part, "grey": part | {"within_0.1": 1.0}})
    assert line.endswith("48 px .92 of 200, grey 1.00 of 200.")
