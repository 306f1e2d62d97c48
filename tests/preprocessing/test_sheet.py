import base64

import numpy as np

from checkpoints.artifact import read_json
from preprocessing.align import encode_jpeg
from preprocessing.faces import HEADER
from preprocessing.sheet import SHEET, sharpness, write_sheet
from preprocessing.write_faces import finish_store, write_shard


def row(video, frame, value, score):
    seen = value is not None
    return {
        "video": video,
        "subject": "",
        "frame": frame,
        "time_s": 0.0,
        "image": encode_jpeg(np.full((112, 112, 3), value, np.uint8)) if seen else None,
        "box": [0, 0, 50, 70] if seen else None,
        "score": score,
        "interpolated": False,
    }


def test_a_data_sheet_tells_what_the_store_holds(tmp_path):
    write_shard(tmp_path, "a", [row("a", k, 10 * k if k < 6 else None, 0.9 if k < 6 else None) for k in range(1, 11)])
    write_shard(tmp_path, "b", [row("b", 1, 200, 0.71)])
    problems = [{"source": "in/c.mp4", "video": "c", "problem": "cannot be opened as a video: <b>"}]
    config = {"sources": ["in"]}
    finish_store(
        tmp_path, made_by="t", config=config, image_size=112, problems=problems, items=3, frames=11, synthetic=True
    )
    thumbnail = base64.b64encode(encode_jpeg(np.zeros((60, 100, 3), np.uint8))).decode()
    write_sheet(tmp_path, read_json(tmp_path / HEADER), [{"label": "a 6", "jpeg": thumbnail}])
    page = (tmp_path / SHEET).read_text()
    assert "6 (54.5%)" in page
    assert "50.0%" in page  # of the frames of `a` have a face
    assert "in/c.mp4" in page
    assert "<b>" not in page
    assert "Synthetic data" in page
    assert page.count("data:image/jpeg") == 6 + 6 + 1  # a sample, those with the lowest scores, no face found
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_store_without_any_face_has_a_sheet(tmp_path):
    write_shard(tmp_path, "a", [row("a", 1, None, None)])
    finish_store(tmp_path, made_by="t", config={"sources": ["in"]}, image_size=112, problems=[], items=1, frames=1)
    write_sheet(tmp_path, read_json(tmp_path / HEADER), [])
    assert "0 (0.0%)" in (tmp_path / SHEET).read_text()


def test_sharpness_orders():
    rng = np.random.default_rng(0)
    fine = rng.integers(0, 255, (64, 64, 3), np.uint8)
    coarse = np.kron(fine[:8, :8], np.ones((8, 8, 1), np.uint8))
    assert sharpness(fine) > sharpness(coarse) > sharpness(np.full((64, 64, 3), 90, np.uint8)) == 0
