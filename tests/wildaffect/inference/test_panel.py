"""What is drawn beside and onto the frames of an annotated video."""

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw

from wildaffect.inference.panel import INK, Painter, clock, font, glyphs, people_of
from wildaffect.inference.predictor import Predictor
from wildaffect.report.palette import EXPRESSION_COLOURS, rgb


def test_several_people_are_told_apart_by_their_numbers(heads, store):
    people = people_of(Predictor(heads).predict_faces(store, "clip"))
    assert [(person.name, person.number) for person in people] == [("person 1", "1"), ("person 2", "2")]
    painter, picture = Painter(people, 160, 120, ""), np.zeros((120, 160, 3), np.uint8)
    before, after = (painter.draw(picture, frame, frame / 25)[:, : painter.width].max() for frame in (60, 61))
    assert before > 100 and not after  # nobody is left after the last frame


def test_boxes_have_the_colours_of_the_expressions(heads, store):
    (person, _) = people_of(Predictor(heads).predict_faces(store, "clip"))
    painter = Painter([person], 160, 120, "")
    for row in (0, 59):
        drawn = painter.draw(np.zeros((120, 160, 3), np.uint8), row + 1, 0.0)[:, : painter.width]
        shown = rgb(EXPRESSION_COLOURS[person.expression[row].split()[0]])
        assert (drawn == shown).all(axis=2).sum() > 200


def test_a_face_without_a_box_is_a_face(heads, store):
    """Ready crops have no boxes: the details are there, and nothing is drawn on the picture."""
    (person, _) = people_of(Predictor(heads).predict_faces(store, "clip"))
    person.box[:] = np.nan
    painter, picture = Painter([person], 160, 120, ""), np.zeros((120, 160, 3), np.uint8)
    seen, away = painter.draw(picture, 1, 0.0), painter.draw(picture, 25, 0.0)
    assert not seen[:, : painter.width].any()
    bars = seen[244:400, painter.width + 60 : painter.width + 230]
    assert (bars == INK).all(axis=2).sum() > (away[244:400, painter.width + 60 :] == INK).all(axis=2).sum()
    assert not np.array_equal(seen[208:226, painter.width :], away[208:226, painter.width :])


def test_a_filtered_label_has_its_own_probability(heads, store):
    table = Predictor(heads).predict_faces(store, "clip")
    filtered = pa.array([label and "Fear" for label in table["expression"].to_pylist()])
    table = table.set_column(table.column_names.index("expression"), "expression", filtered)
    (person, _) = people_of(table)
    assert person.expression[0] == f"Fear {table['p_Fear'][0].as_py():.2f}"


def test_bars_have_a_mark_where_an_au_becomes_active(heads, store):
    (person, _) = people_of(Predictor([heads[2]]).predict_faces(store, "clip"))
    thresholds = np.linspace(0.2, 0.9, 12)
    painter = Painter([person], 160, 120, "", thresholds)
    panel = painter.draw(np.zeros((120, 160, 3), np.uint8), 1, 0.0)[:, painter.width :]
    for number, threshold in enumerate(thresholds):
        gap = panel[243 + 14 * number]  # above the bar, where only the mark is
        assert np.flatnonzero((gap == INK).all(axis=1)).tolist() == [60 + round(170 * threshold)]


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0:00.00"), (3.594, "0:03.59"), (59.999, "1:00.00"), (3603.5, "1:00:03.50"), (-1.25, "-0:01.25")],
)
def test_a_time_stamp_is_as_on_a_player(seconds, text):
    assert clock(seconds) == text


@pytest.mark.parametrize(
    "text", ["V +0.12  A -0.34", "1:00:03.59", "2  Fear 0.11", "person 2: Surprise 0.47", "سلام", ""]
)
@pytest.mark.parametrize("size", [11, 12, 14])
def test_a_line_of_letters_is_as_if_it_were_drawn_whole(text, size):
    picture = Image.new("L", (max(1, int(np.ceil(font(size).getlength(text)))), size + size // 3))
    ImageDraw.Draw(picture).text((0, 0), text, 255, font(size))
    drawn = glyphs(text, size)
    assert drawn.shape == np.asarray(picture).shape
    assert np.abs(drawn - np.asarray(picture) / 255).max() < 0.15  # letters that touch
