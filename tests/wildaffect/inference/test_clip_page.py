import base64
import time

import numpy as np
import pytest

from tests.wildaffect.inference.conftest import face_rows, write_store
from wildaffect.inference.clip_facts import facts_of, warnings_of
from wildaffect.inference.clip_page import _facts_table, _peaks, chart_data, peaks_of, write_report
from wildaffect.inference.predictor import Predictor
from wildaffect.inference.table import rows_of
from wildaffect.tasks import AUS


@pytest.fixture(scope="module")
def predictor(heads):
    return Predictor(heads)


@pytest.fixture(scope="module")
def table(predictor, store):
    return predictor.predict_faces(store, "clip")


@pytest.mark.parametrize("subject", ["", "2"])
def test_every_peak_has_the_picture_of_its_own_frame(table, store, subject):
    rows = rows_of(table, subject)
    peaks = peaks_of(rows)
    start = next(sequence.start for sequence in store.sequences() if sequence.subject == subject)
    for (row, reasons), card in zip(peaks, _peaks(table, subject, store, "clip").figures, strict=True):
        assert card.image == store.jpeg(start + row)
        assert f"frame {rows['frame'][row].as_py()}" in card.caption
        for reason in reasons.split(", "):
            which, name, value = reason.split(" ")
            column = rows[f"p_{name}" if which == "surest" else name].to_numpy(zero_copy_only=False)
            if which != "surest":
                best = np.nanmin(column) if which == "lowest" else np.nanmax(column)
                assert column[row] == best
            assert column[row] == pytest.approx(float(value), abs=0.006)
    said = " ".join(reasons for _, reasons in peaks)
    assert all(f"{which} {name}" in said for which in ("highest", "lowest") for name in ("valence", "arousal"))


def test_decisions_on_the_page_are_those_of_the_table(table):
    """The heads' thresholds are 0.3 to 0.6."""
    for person, subject in zip(chart_data(table)["people"], ("", "2"), strict=True):
        rows = rows_of(table, subject)
        bits = np.frombuffer(base64.b64decode(person["active"]), "<u2")[:, None] >> np.arange(12) & 1
        decided = np.stack([rows[name].to_numpy(zero_copy_only=False) for name in AUS], axis=1)
        assert np.array_equal(bits, np.nan_to_num(decided))
        assert 0 < bits.sum() < bits.size


def test_the_facts_stand_in_one_line_below_each_other(table):
    """Numbers and texts of one column would be aligned differently."""
    shown = dict(_facts_table(facts_of(table)).rows)
    assert all(isinstance(value, str) for value in shown.values())
    assert (shown["frames"], shown["frames per second"], shown["people"]) == ("60", "25", "2")


def test_a_frame_has_a_face_if_anybody_has(table, predictor):
    """The main person is away in 15 of 60 frames, in which another one is there."""
    facts = facts_of(table)
    assert (facts.with_face, facts.with_main_person) == (1.0, 0.75)
    assert "main person's face is in only 75%" in " ".join(warnings_of(predictor.models, facts, []))


@pytest.fixture
def page(table, store, predictor, browser, tmp_path):
    facts = facts_of(table)
    write_report(tmp_path / "report.html", "clip", table, store, predictor.models, facts, ["a warning"])
    browser.open((tmp_path / "report.html").as_uri())
    return browser


def pointed_at(page, share: float) -> str:
    """What is said when the mouse is at a share of the time."""
    x, y, width = page.run(
        "(() => { const c = document.querySelector('.tl canvas'); c.scrollIntoView({block: 'center'});"
        " const r = c.getBoundingClientRect(); return [r.x, r.y, r.width]; })()"
    )
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=x + 58 + (width - 66) * share, y=y + 50)
    time.sleep(0.2)
    return page.run("document.querySelector('.tl-read').textContent")


def key(page, name: str) -> str:
    for kind in ("keyDown", "keyUp"):
        page.send("Input.dispatchKeyEvent", type=kind, key=name)
    time.sleep(0.2)
    return page.run("document.querySelector('.tl-read').textContent")


def test_where_a_person_has_no_rows_there_is_no_face(page, table):
    """Person 2 is there from 0.40 to 1.76 s of 0 to 2.36 s."""
    page.run("document.querySelector('.tl-bar select').selectedIndex = 1")
    page.run("document.querySelector('.tl-bar select').dispatchEvent(new Event('change'))")
    for second, face in ((0.21, False), (0.61, True), (1.61, True), (1.91, False), (2.3, False)):
        said = pointed_at(page, second / 2.36)
        assert said.startswith(f"{second:.2f} s" if not face else f"{second - 0.01:.2f} s")
        assert ("no face" in said) != face and ("valence" in said) == face
    ink = page.run(
        "[0.3, 1].map((t) => [...document.querySelector('.tl canvas').getContext('2d')"
        ".getImageData(58 + Math.round(t / 2.36 * (document.querySelector('.tl canvas').clientWidth - 66)), 60, 9, 9)"
        ".data]"
        ".filter((v, k, all) => k >= 4 && v !== all[k % 4]).length)"
    )
    assert ink[0] > 0 == ink[1]  # hatched, or one colour


def test_aus_are_named_if_they_reach_the_heads_thresholds(page, table):
    rows = rows_of(table, "").to_pylist()
    for frame in (5, 50):
        said = pointed_at(page, (frame / 25 + 0.01) / 2.36)
        row = rows[frame]
        expected = [name for name in AUS if row[name]]
        assert [word for word in said.replace("\u2003", " ").split() if word.startswith("AU")] == expected


def test_keys_move_the_cursor_and_zoom(page):
    page.run("document.querySelector('.tl canvas').focus()")
    assert page.run("document.activeElement.tagName") == "CANVAS"
    assert key(page, "Home").startswith("0.00 s") and key(page, "ArrowRight").startswith("0.04 s")
    assert key(page, "End").startswith("2.36 s") and key(page, "ArrowLeft").startswith("2.32 s")
    before = page.run("document.querySelector('.tl canvas').toDataURL()")
    key(page, "+")
    assert page.run("document.querySelector('.tl canvas').toDataURL()") != before
    key(page, "Escape")
    assert page.run("document.querySelector('.tl canvas').toDataURL()") == before


def test_the_wheel_scrolls_the_page(page):
    pointed_at(page, 0.5)
    taken = "(o) => !document.querySelector('.tl canvas').dispatchEvent(new WheelEvent('wheel', o))"
    assert not page.run(f"({taken})({{deltaY: 100, cancelable: true}})")
    assert page.run(f"({taken})({{deltaY: 100, cancelable: true, ctrlKey: true}})")


@pytest.mark.parametrize("scheme, dark", [("light", False), ("dark", True)])
@pytest.mark.parametrize("width", [1366, 390])
def test_the_page_fits_and_follows_the_system(page, width, scheme, dark):
    page.resize(width, 800)
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    time.sleep(0.2)
    assert page.run("document.documentElement.scrollWidth") == width
    light = "(e) => getComputedStyle(e).backgroundColor.match(/[0-9]+/g).reduce((a, b) => a + +b, 0) / 3"
    assert (page.run(f"({light})(document.querySelector('section'))") < 60) == dark
    corner = "document.querySelector('.tl canvas').getContext('2d').getImageData(64, 60, 1, 1).data[0]"
    assert (page.run(corner) < 60) == dark
    assert not page.messages


def test_a_clip_with_one_frame_and_nobody(predictor, tmp_path):
    from preprocessing.faces import FacesStore

    store = FacesStore(write_store(tmp_path / "faces", face_rows("clip", "", range(1, 2), {1})))
    table = predictor.predict_faces(store, "clip")
    write_report(tmp_path / "report.html", "clip", table, store, predictor.models, facts_of(table), [])
    assert "Peaks" not in (tmp_path / "report.html").read_text(encoding="utf-8")
