import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints.errors import UserError
from wildaffect.training.images import CropDataset, decode, random_resized_crop, resize

ROOT = Path(__file__).parents[3]


def jpeg(seed=0, size=40, mode="RGB"):
    y, x = np.mgrid[:size, :size] / size
    shade = (np.stack([x, y, (x + y + seed) % 1], axis=-1) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(shade).convert(mode).save(buffer, "jpeg", quality=95)
    return buffer.getvalue()


def dataset(pictures, **kwargs):
    return CropDataset(
        count=len(pictures),
        picture=lambda index: decode(pictures[index]),
        name=str,
        size=16,
        scale=(0.5, 1.0),
        seed=0,
        **kwargs,
    )


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_decode_and_resize(mode):
    picture = decode(jpeg(mode=mode))
    assert picture.shape == (3, 40, 40)
    assert picture.dtype == torch.uint8
    reference = np.asarray(Image.open(io.BytesIO(jpeg(mode=mode))).convert("RGB")).astype(int)
    assert np.abs(picture.permute(1, 2, 0).numpy() - reference).max() <= 2
    assert resize(picture, 20).shape == (3, 20, 20)


def test_crops_depend_on_seed_epoch_and_sample_alone():
    data = dataset([jpeg(i / 5) for i in range(5)])
    first = data.__getitems__([(0, 1), (0, 2), (3, 1)])["images"]
    again = data.__getitems__([(3, 1), (0, 2), (0, 1)])["images"].flip(0)
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[2])


def test_whole_crop_is_the_picture():
    picture = decode(jpeg())
    crop = random_resized_crop(picture, np.random.default_rng(0), 40, (1.0, 1.0), flip=False)
    assert torch.equal(crop, picture)


def test_a_corrupt_picture_is_replaced_and_named():
    pictures = [jpeg(i / 8) for i in range(8)]
    pictures[3] = b"\xff\xd8 nonsense"
    pictures[6] = b""
    data = dataset(pictures, extras=lambda rng, index: {"label": index})
    batch = data.__getitems__([(0, 2), (0, 3), (0, 6)])
    assert batch["label"].tolist() == [2, 4, 7]
    assert [name.split(":")[0] for name in batch["skipped"]] == ["3", "6"]
    assert data.__getitems__([(0, 2)])["skipped"] == []


def test_nothing_but_corrupt_pictures():
    with pytest.raises(UserError, match="8 pictures in a row cannot be decoded, last 7: "):
        dataset([b"nonsense"] * 8)[(0, 0)]


def test_a_command_ends_when_its_worker_refuses(tmp_path):
    """Workers pass over SIGTERM, which is what Python sends them at its end before it waits for them."""
    (tmp_path / "command.py").write_text(
        "from checkpoints.errors import UserError, guarded\n"
        "from wildaffect.training.images import work_ahead\n"
        "class Refusing:\n"
        "    def __getitems__(self, batch):\n"
        "        raise UserError('the picture is broken')\n"
        "def main():\n"
        "    kept = iter(work_ahead(Refusing(), 1, [[0]] * 9))\n"
        "    next(kept)\n"
        "guarded(main)\n"
    )
    ended = subprocess.run(
        [sys.executable, tmp_path / "command.py"], env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=120,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (2, "error: the picture is broken\n")
