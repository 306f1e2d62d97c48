"""Augmentation of single pictures."""

import numpy as np
import torch

from finetune.augment import picture_augmentation

NONE = {"framing_jitter": 0.0, "blur": 0.0, "randaugment": 0, "colour_jitter": 0.0, "erasing": 0.0}


def picture():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 48, 48), dtype=torch.uint8, generator=generator)


def test_nothing_asked_for_is_nothing_done():
    assert picture_augmentation(**NONE) is None


def test_the_sample_decides():
    augment = picture_augmentation(**NONE | {"framing_jitter": 0.1, "blur": 0.5, "colour_jitter": 0.3, "erasing": 0.5})
    once, again, other = (augment(picture(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert once.dtype == torch.uint8
    assert once.shape == (3, 48, 48)


def test_blur_takes_detail_away():
    augment = picture_augmentation(**NONE | {"blur": 1.0})

    def detail(image):
        return image.float().diff(dim=-1).abs().mean().item()

    results = [detail(augment(picture(), np.random.default_rng(seed))) for seed in range(20)]
    assert np.median(results) < 0.6 * detail(picture())
    assert max(results) <= detail(picture()) * 1.01


def test_framing_jitter_moves_a_mark_no_further_than_it_says():
    image = torch.zeros(3, 100, 100, dtype=torch.uint8)
    image[:, 48:52, 48:52] = 255
    augment = picture_augmentation(**NONE | {"framing_jitter": 0.08})
    places = []
    for seed in range(60):
        moved = augment(image, np.random.default_rng(seed))[0].float()
        moved[moved < 200] = 0
        rows, columns = torch.nonzero(moved, as_tuple=True)
        if len(rows):
            places.append([rows.float().mean().item() - 49.5, columns.float().mean().item() - 49.5])
    assert len(places) > 30
    assert 4 < np.abs(places).max() <= 9
