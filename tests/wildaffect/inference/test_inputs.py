"""What may be passed to the predictor, with a detector that finds drawn squares."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from checkpoints.errors import UserError
from preprocessing.pictures import read_picture
from tests.wildaffect.inference.conftest import face_rows, write_store
from tests.wildaffect.inference.test_clip import BrightSquare, write_clip
from wildaffect.inference.inputs import as_picture
from wildaffect.inference.predictor import Predictor

STEP = 40
COUNT = 8


def drawn(count: int = COUNT) -> list[np.ndarray]:
    """Frames of a bright square that moves."""
    frames = [np.full((120, 160, 3), 20, np.uint8) for _ in range(count)]
    for number, frame in enumerate(frames):
        texture = np.random.default_rng(number).integers(180, 255, (60, 60, 1), np.uint8)
        frame[30:90, 40 + number : 100 + number] = texture
    return frames


@pytest.fixture(scope="module")
def predictor(heads):
    made = Predictor(heads[:2], device="cpu")
    made.detector = BrightSquare()
    return made


@pytest.fixture(autouse=True)
def no_warnings_are_shown():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two videos, a picture, and `frames/` with numbered pictures."""
    place = tmp_path_factory.mktemp("clips")
    for name in ("a", "b"):
        write_clip(place / f"{name}.mp4", [STEP * n for n in range(COUNT)])
    Image.fromarray(drawn(1)[0]).save(place / "still.png")
    (place / "frames").mkdir()
    for number, frame in enumerate(drawn(), 1):
        Image.fromarray(frame).save(place / "frames" / f"{number:04}.png")
    return place


def valence(result):
    return np.array(result.table["valence"].to_pylist(), float)


@pytest.mark.parametrize(
    "form",
    [list, np.stack, iter, lambda frames: map(Image.fromarray, frames)],
    ids=["list", "array", "iterator", "PIL"],
)
@pytest.mark.parametrize("clock", [{"fps": 25}, {"times": np.arange(COUNT) / 25}], ids=["fps", "times"])
def test_frames_in_any_form_are_one_clip(predictor, form, clock):
    result = predictor.predict(form(drawn()), progress=False, **clock)
    assert len(result) == COUNT and all(result.table["face"].to_pylist())
    assert np.allclose(result.table["time_s"].to_numpy(), np.arange(COUNT) / 25)
    assert np.allclose(valence(result), valence(predictor.predict(drawn(), fps=25, progress=False)))


def test_frames_are_predicted_as_their_files_are(predictor, folder):
    of_folder = predictor.predict(folder / "frames", fps=25, progress=False)
    assert of_folder.table["time_s"].to_pylist()[1] == 1 / 25
    assert np.array_equal(valence(of_folder), valence(predictor.predict(drawn(), fps=25, progress=False)))


def test_a_missing_frame_keeps_its_row(predictor):
    frames = [*drawn(3), None, *drawn(2)]
    result = predictor.predict(frames, fps=25, progress=False)
    assert result.table["frame"].to_pylist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("form", [str, Path, Image.open, lambda path: np.asarray(Image.open(path))])
def test_a_picture_in_any_form(predictor, folder, form):
    result = predictor.predict(form(folder / "still.png"), progress=False)
    assert len(result) == 1 and result.table["face"][0].as_py()
    assert np.array_equal(valence(result), valence(predictor.predict(drawn(1)[0], progress=False)))


def saved(place: Path, image: Image.Image, **options: Any) -> Path:
    image.save(place, **options)
    return place


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_of_pil_is_upright(tmp_path, suffix, orientation):
    image, exif = np.zeros((40, 60, 3), np.uint8), Image.Exif()
    image[:20, :30], image[:20, 30:] = (250, 30, 30), (30, 250, 30)
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(image), exif=exif)
    seen = as_picture(Image.open(path), "it").astype(int)
    # Orientations 1 to 4 keep rows and columns; the first stored row and column are shown at these sides.
    sides = [
        "top left",
        "top right",
        "bottom right",
        "bottom left",
        "left top",
        "right top",
        "right bottom",
        "left bottom",
    ]
    row, column = sides[orientation - 1].split()
    right = image if orientation < 5 else image.swapaxes(0, 1)
    right = right[::-1] if "bottom" in (row, column) else right
    right = right[:, ::-1] if "right" in (row, column) else right
    assert seen.shape == right.shape and np.abs(seen - right).mean() < 6


GREY = np.linspace(0, 255, 64).astype(np.uint8)[None].repeat(32, 0)
LAYERED = np.dstack([GREY, GREY, GREY, np.where(GREY > 128, 255, 0).astype(np.uint8)])
SHADES = Image.fromarray(GREY).convert("P")


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (Image.fromarray(GREY.astype(np.uint16) * 257), {}),
        (Image.fromarray(GREY.astype(np.float32) / 255), {"format": "TIFF"}),
        (Image.fromarray(LAYERED), {}),
        (SHADES, {"transparency": 0}),
        (Image.fromarray(GREY).convert("CMYK"), {"format": "TIFF"}),
    ],
    ids=["16 bits", "float", "alpha", "palette", "CMYK"],
)
def test_a_picture_of_pil_is_read_as_its_file(tmp_path, image, options):
    path = saved(tmp_path / "a.png", image, **options)
    assert np.array_equal(as_picture(Image.open(path), "it"), read_picture(path))


def cut_picture() -> Image.Image:
    """A picture of PIL whose file breaks off."""
    whole = io.BytesIO()
    Image.fromarray(drawn(1)[0]).save(whole, "PNG")
    return Image.open(io.BytesIO(whole.getvalue()[:4000]))


def test_every_clip_of_a_folder_or_a_list_is_predicted(predictor, folder):
    result = predictor.predict(folder, progress=False)
    assert [part.clip for part in result] == ["a", "b", "still", "frames"]
    rows = result.to_pandas()
    assert list(rows.columns[:3]) == ["clip", "subject", "frame"]
    assert rows.groupby("clip").size().to_dict() == {"a": COUNT, "b": COUNT, "frames": COUNT, "still": 1}
    picture = drawn(1)[0]
    mixed = predictor.predict([folder / "b.mp4", picture, picture, folder], progress=False)
    assert [part.clip for part in mixed] == ["b", "picture", "picture~2", "a", "b~2", "still", "frames"]
    assert len(predictor.predict([folder / "a.mp4"], progress=False)) == 1  # a list stays a list
    assert repr(result).startswith("<4 predictions:\n  <Prediction 'a'")
    nobody = predictor.predict(np.zeros((90, 120, 3), np.uint8), progress=False)
    assert "1 frame(s), no face; " in repr(nobody) and "no face" in nobody._repr_html_()


def test_many_clips_in_threads_are_the_same_in_the_same_order(predictor, folder):
    one, two = (list(predictor.predict_many(folder, workers=n, progress=False)) for n in (1, 2))
    assert [part.clip for part in two] == [part.clip for part in one]
    assert all(a.table.equals(b.table) for a, b in zip(one, two, strict=True))
    with pytest.raises(UserError, match="workers=0"):
        next(predictor.predict_many(folder, workers=0))


def test_a_faces_store(predictor, heads, tmp_path):
    from preprocessing.faces import FacesStore

    rows = face_rows("a", "", range(1, 7)) + face_rows("b", "", range(1, 5), seed=1)
    path = write_store(tmp_path / "faces", rows)
    for source in (path, str(path), FacesStore(path), [path]):
        result = predictor.predict(source, progress=False)
        assert [(part.clip, len(part)) for part in result] == [("a", 6), ("b", 4)]
    result[1].report(tmp_path / "b.html")  # with the pictures of b
    assert result[1].store.fingerprint == result[0].store.fingerprint


def test_ready_crops_are_not_searched(heads, folder, tmp_path):
    predictor = Predictor(heads[:2], device="cpu")
    predictor.detector = None  # any search would fail
    crops = [frame[30:90, 40:100] for frame in drawn()]
    result = predictor.predict(crops, fps=25, crops=True, progress=False)
    assert all(result.table["face"].to_pylist()) and result.table["x1"].null_count == COUNT
    assert np.isfinite(valence(result)).all() and not any("small" in text for text in result.warnings)
    result.report(tmp_path / "crops.html")
    single = predictor.predict(crops, crops=True, progress=False)
    assert [len(part) for part in single] == [1] * COUNT
    assert len(predictor.predict(folder / "frames", crops=True, progress=False)) == COUNT
    video = predictor.predict(folder / "a.mp4", crops=True, progress=False)
    assert video.save_video(tmp_path / "crops.mp4").stat().st_size > 1000


PICTURE = drawn(1)[0]
NUMBERS = PICTURE.astype(float)


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        (3, {}, "int cannot be predicted: pass a path"),
        (b"clip.mp4", {}, "bytes cannot be predicted"),
        ([], {}, "the list is empty"),
        ([[PICTURE]], {}, "list cannot be predicted"),
        ("nothing.mp4", {}, "nothing.mp4 does not exist"),
        (["nothing.mp4"], {}, "nothing.mp4 does not exist"),
        (NUMBERS, {}, r"the picture is float64 \[120, 160, 3\]: expected RGB, uint8"),
        (PICTURE[..., 0], {}, r"the picture is uint8 \[120, 160\]"),
        (PICTURE[None], {}, "pass fps= or times="),
        (iter([PICTURE]), {}, "pass fps= or times="),
        ([PICTURE], {"fps": 0}, "fps=0"),
        ([PICTURE], {"fps": 25, "times": [0]}, "not both"),
        ([PICTURE, PICTURE], {"times": [0]}, "times= has 1 entries and there are more frames"),
        ([PICTURE], {"times": [0, 1]}, "times= has more entries than there are frames"),
        ([PICTURE, PICTURE], {"times": [1, 1]}, "times= must increase: entry 2 is 1"),
        ([PICTURE, PICTURE, NUMBERS], {"fps": 25}, "frame 3 is float64"),
        ([NUMBERS], {"fps": 25}, "frame 1 is float64"),
        ([PICTURE, "b.png"], {"fps": 25}, "frame 2 is a str"),
        (cut_picture(), {}, "the picture cannot be read: image file is truncated"),
        ([PICTURE, cut_picture()], {"fps": 25}, "frame 2 cannot be read: image file is truncated"),
    ],
)
def test_what_cannot_be_predicted_is_named(predictor, source, options, said):
    with pytest.raises(UserError, match=said):
        predictor.predict(source, progress=False, **options)


def test_a_clock_for_what_has_its_own(predictor, folder):
    with pytest.raises(UserError, match=r"a\.mp4 has its own times"):
        predictor.predict(folder / "a.mp4", fps=25, progress=False)


def test_an_error_of_the_users_generator_is_theirs(predictor):
    def broken():
        yield PICTURE
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        predictor.predict(broken(), fps=25, progress=False)
