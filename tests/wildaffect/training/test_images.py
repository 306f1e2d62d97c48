import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.functional import pil_to_tensor, resized_crop, to_pil_image

from checkpoints.errors import UserError
from wildaffect.training.images import CropDataset, RandomCrop, decode, resize

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
        crop=RandomCrop(16, (0.5, 1.0)),
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
    crops = [RandomCrop(40, (1.0, 1.0))(picture, np.random.default_rng(seed)) for seed in range(8)]
    assert {torch.equal(crop, picture) for crop in crops} == {True, False}
    assert all(torch.equal(crop, picture) or torch.equal(crop.flip(-1), picture) for crop in crops)


def boxes(style, size, count=20_000):
    rng = np.random.default_rng(0)
    return np.array([RandomCrop(224, (0.2, 1.0), style).box(*size, rng) for _ in range(count)])


@pytest.mark.parametrize("size", [(256, 256), (200, 256)])
def test_parts_are_distributed_as_in_torchvision(size):
    torch.manual_seed(0)
    picture = torch.empty(3, *size)
    theirs = [RandomResizedCrop.get_params(picture, (0.2, 1.0), (3 / 4, 4 / 3)) for _ in range(20_000)]
    ours, theirs = boxes("mae", size).T, np.array(theirs).T
    for a, b in zip(
        (*ours, ours[2] * ours[3], ours[3] / ours[2]),
        (*theirs, theirs[2] * theirs[3], theirs[3] / theirs[2]),
        strict=True,
    ):
        assert ks_2samp(a, b).pvalue > 1e-3
    assert ks_2samp(boxes("fast", size).T[2], theirs[2]).pvalue < 1e-9  # the test tells other parts apart


def test_clamped_parts_are_larger():
    share = {style: boxes(style, (256, 256))[:, 2:].prod(axis=1) / 256**2 for style in ("mae", "fast")}
    assert share["mae"].mean() == pytest.approx(0.54, abs=0.01) and share["fast"].mean() == pytest.approx(
        0.595, abs=0.01
    )
    full = {style: (boxes(style, (256, 256))[:, 2:] == 256).any(axis=1).mean() for style in ("mae", "fast")}
    assert full["mae"] < 0.02 and full["fast"] > 0.15


def test_whole_picture_where_nothing_fits():
    rng = np.random.default_rng(0)
    assert RandomCrop(8, (1.0, 1.0), "mae").box(10, 10, rng) == (0, 0, 10, 10)
    assert RandomCrop(8, (1.0, 1.0), "mae").box(10, 40, rng)[2:] == (10, 13)


def test_parts_are_resized_as_by_pillow():
    picture = decode(jpeg(size=90))
    crop = RandomCrop(32, (0.2, 1.0), "mae")
    for seed in range(20):
        box = crop.box(90, 90, np.random.default_rng(seed))
        whole = to_pil_image(picture)
        wanted = pil_to_tensor(resized_crop(whole, *box, [32, 32], InterpolationMode.BICUBIC)).int()
        found = crop(picture, np.random.default_rng(seed))
        assert min((found - side).abs().max() for side in (wanted, wanted.flip(-1))) <= 2


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
    """Workers ignore SIGTERM, which Python sends them at exit before it waits for them."""
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
