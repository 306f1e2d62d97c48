"""Action units that a head withholds are in no output, and the others are as they were."""

import shutil

import numpy as np
import pytest

from temporal.heads import load_head, read_head_header, save_head
from wildaffect.inference.clip_page import chart_data
from wildaffect.inference.panel import Painter, people_of
from wildaffect.inference.plots import overview
from wildaffect.inference.predictor import Predictor
from wildaffect.inference.table import matrix, present_tasks, units_of
from wildaffect.tasks import AUS

WITHHELD = ("AU2", "AU23")


@pytest.fixture
def withholding(heads, tmp_path):
    """A copy of the head for action units that withholds two of them."""
    place = heads[2].parent / "withholding"
    shutil.copytree(heads[2], place, dirs_exist_ok=True)
    head, header = load_head(place), read_head_header(place / "head")
    head.withheld = WITHHELD
    save_head(head, place / "head", made_by="test", config=header["config"], parents=header["parents"])
    return place


def test_no_output_has_what_is_withheld(heads, withholding, store):
    every, fewer = (Predictor([head]).predict_faces(store, "clip") for head in (heads[2], withholding))
    kept = [name for name in AUS if name not in WITHHELD]
    assert units_of(fewer) == kept and units_of(every) == list(AUS)
    gone = {name for unit in WITHHELD for name in (unit, f"p_{unit}")}
    assert set(every.column_names) - set(fewer.column_names) == gone
    columns = [f"p_{name}" for name in kept]
    np.testing.assert_array_equal(matrix(every, columns), matrix(fewer, columns))
    assert [task.name for task in present_tasks(fewer)] == ["au"]
    assert chart_data(fewer)["aus"] == kept
    people = people_of(fewer)
    thresholds = np.linspace(0, 1, 12)
    assert Painter(people, 160, 120, "", thresholds).thresholds == [thresholds[AUS.index(name)] for name in kept]
    axis = overview(fewer, "", "clip", "").axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == kept[::-1]
