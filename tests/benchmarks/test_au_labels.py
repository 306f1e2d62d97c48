"""Hand labels of action units: read strictly, compared pass by pass, and joined."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.au_labels import COLUMNS, read_hand_labels
from checkpoints.errors import UserError
from preprocessing.pictures import read_picture
from wildaffect.tasks import AUS


def write_labels(path, codes, places=None):
    """A file in which `codes[face] = (first pass, second pass)` are those of AU1; all other codes are 0."""
    lines = [",".join(COLUMNS)]
    for number in (1, 2):
        for face, given in codes.items():
            source, file, frame = (places or {}).get(face, ("london", f"{face}.jpg", ""))
            lines.append(f"{face},{source},{file},{frame},person {face},held,{number},{given[number - 1]}{',0' * 11}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_codes_count_where_both_passes_agree(tmp_path):
    given = {"a": "11", "b": "00", "c": "10", "d": ("1", ""), "e": ("", "")}
    labels = read_hand_labels(write_labels(tmp_path / "codes.csv", given))
    np.testing.assert_array_equal(labels.agreed()[:, 0], [1, 0, np.nan, np.nan, np.nan])
    assert not labels.agreed()[:, 1:].any()
    assert labels.places[0] == "london/a.jpg" and labels.people[1] == "person b" and set(labels.splits) == {"held"}


def test_agreement_is_cohens_kappa(tmp_path):
    """The textbook's 50 judgements: 20 yes and 15 no by both, 5 and 10 apart; kappa .4."""
    pairs = ["11"] * 20 + ["10"] * 5 + ["01"] * 10 + ["00"] * 15 + [("", "1")]
    labels = read_hand_labels(write_labels(tmp_path / "codes.csv", {f"f{k}": pair for k, pair in enumerate(pairs)}))
    agreement = labels.agreement()
    assert list(agreement) == list(AUS)
    assert agreement["AU1"] == {"judged": 50, "present": [25, 30], "present_in_both": 20, "kappa": pytest.approx(0.4)}
    assert agreement["AU2"]["kappa"] is None  # never present: chance explains all of it


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(",AU26", ",AU27"), "no column AU26"),
        (lambda text: text.replace(",1,0,0", ",1,2,0", 1), "column AU1: expected 0, 1 or nothing, found 2"),
        (lambda text: text[: text.rindex("\n", 0, -1) + 1], "pass 2 lacks b"),
        (lambda text: text.replace(",held,2,", ",held,1,"), "two or more"),
        (lambda text: text + text.splitlines()[-1] + "\n", "has a face twice"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change, message):
    path = write_labels(tmp_path / "codes.csv", {"a": "00", "b": "00"})
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=message):
        read_hand_labels(path)


def test_pictures_and_frames_come_from_the_data_folder(tmp_path):
    (tmp_path / "london").mkdir()
    (tmp_path / "videos").mkdir()
    shades = [Image.new("L", (32, 32), shade) for shade in (50, 150)]
    shades[0].save(tmp_path / "london" / "a.png")
    shades[0].save(tmp_path / "videos" / "b.gif", save_all=True, append_images=shades[1:], duration=40)
    places = {"a": ("london", "a.png", ""), "b": ("videos", "b.gif", "2")}
    labels = read_hand_labels(write_labels(tmp_path / "codes.csv", {"a": "00", "b": "00"}, places))
    faces = labels.faces(tmp_path)
    assert [int(read_picture(content)[0, 0, 0]) for content in faces.pictures] == [50, 150]

    places["b"] = ("videos", "b.gif", "3")
    with pytest.raises(UserError, match="no frame 3"):
        read_hand_labels(write_labels(tmp_path / "codes.csv", {"a": "00", "b": "00"}, places)).faces(tmp_path)
    places["b"] = ("muxspace", "b.jpg", "")
    with pytest.raises(UserError, match="no muxspace/b"):
        read_hand_labels(write_labels(tmp_path / "codes.csv", {"a": "00", "b": "00"}, places)).faces(tmp_path)
