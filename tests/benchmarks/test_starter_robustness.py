"""The check of how steady answers are, on a folder without faces."""

import numpy as np
import pytest
from PIL import Image

from benchmarks import starter_robustness
from checkpoints.errors import UserError


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("none here")
    with pytest.raises(UserError, match="has no pictures"):
        starter_robustness.main(starter_robustness.Robustness(tmp_path))


def test_pictures_without_a_face_are_refused(tmp_path):
    pytest.importorskip("facenet_pytorch")
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / "wall.png")
    out = tmp_path / "result.json"
    with pytest.raises(UserError, match="no face was found in any of 1 pictures"):
        starter_robustness.main(starter_robustness.Robustness(tmp_path, out=out))
    assert not out.exists()
