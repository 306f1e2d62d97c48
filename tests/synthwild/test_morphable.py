"""The model's file: made from the real form of ICT-FaceKit, and read with clear errors."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from checkpoints.errors import UserError
from synthwild.morphable import convert, read_model

SHARED = Path(__file__).parents[3] / "shared" / "facemodel"


@pytest.mark.skipif(not (SHARED / "ict_sample").is_dir(), reason="needs ../shared/facemodel")
def test_sample_of_ict_facekit_is_converted_like_the_reference(tmp_path: Path) -> None:
    for path in (SHARED / "ict_sample").iterdir():
        data = path.read_bytes()
        packed = path.suffix == ".gz"
        (tmp_path / (path.stem if packed else path.name)).write_bytes(gzip.decompress(data) if packed else data)
    arrays = convert(tmp_path)
    np.savez(tmp_path / "M.npz", **arrays)
    model, reference = read_model(tmp_path / "M.npz"), np.load(SHARED / "ict_light.npz")
    assert model.expression_names == ("browDown_L", "jawOpen")
    place = {int(vertex): row for row, vertex in enumerate(arrays["source_vertex"])}
    theirs = [row for row, vertex in enumerate(reference["source_vertex"]) if int(vertex) in place]
    ours = [place[int(reference["source_vertex"][row])] for row in theirs]
    assert len(theirs) > 0.99 * len(reference["neutral"])
    assert np.allclose(model.neutral[ours], reference["neutral"][theirs])
    jaw = list(reference["expression_names"]).index("jawOpen")
    assert np.allclose(model.expression[1][ours], reference["expression"][jaw][theirs], atol=0.01)
    assert np.allclose(model.identity[0][ours], reference["identity"][0][theirs], atol=0.01)
    assert np.allclose(model.neutral[model.landmarks68], reference["neutral"][reference["landmarks68"]])
    named = np.array(model.part_names)[model.part[ours]]
    assert (named == reference["part_names"][reference["part"][theirs]]).all()


def arrays() -> dict[str, np.ndarray]:
    return {
        "neutral": np.zeros((4, 3)),
        "triangles": np.array([[0, 1, 2], [1, 3, 2]]),
        "part": np.zeros(4, np.uint8),
        "part_names": np.array(["face"]),
        "expression": np.zeros((1, 4, 3)),
        "expression_names": np.array(["jawOpen"]),
        "identity": np.zeros((2, 4, 3)),
        "landmarks68": np.zeros(68, int),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identity": None}, "lacks identity"),
        ({"expression": np.zeros((1, 5, 3))}, "expression has the shape"),
        ({"triangles": np.array([[0, 1, 4]])}, "triangles names a vertex beyond the 4"),
        ({"triangles": np.array([[0, 1, -1]])}, "triangles names a vertex beyond the 4"),
        ({"neutral": np.full((4, 3), np.nan)}, "neutral holds numbers that are not finite"),
        ({"neutral": np.zeros(())}, r"neutral is float64 \[\]"),
        ({"identity": np.full((2, 4, 3), "x")}, "identity is <U1"),
        ({"landmarks68": np.zeros(68)}, "landmarks68 is float64"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, change: dict, message: str) -> None:
    found = {name: value for name, value in {**arrays(), **change}.items() if value is not None}
    np.savez(tmp_path / "M.npz", **found)
    with pytest.raises(UserError, match=message):
        read_model(tmp_path / "M.npz")


def test_what_is_no_file_of_arrays_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_model(tmp_path / "M.npz")
    (tmp_path / "M.npz").write_text("not a model")
    with pytest.raises(UserError, match="cannot be read as a face model"):
        read_model(tmp_path / "M.npz")
    with pytest.raises(UserError, match="complete clone"):
        convert(tmp_path)
