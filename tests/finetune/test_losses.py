"""Soft-target losses against the tasks' hard-label ones and against their definitions."""

import pytest
import torch
from torch.nn import functional

from finetune.augment import batch_mixing, picture_augmentation
from finetune.losses import ExpressionLoss
from wildaffect.tasks.losses import expression_loss

MASS = torch.tensor([0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05, 0.0])


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(32, 8, generator=generator), torch.randint(0, 7, (32,), generator=generator)


@pytest.mark.parametrize(("ours", "theirs"), [
    ({}, {}), ({"label_smoothing": 0.1}, {"label_smoothing": 0.1}), ({"imbalance": "focal"}, {"focal": True})
])  # fmt: skip
def test_one_hot_targets_are_hard_labels(batch, ours, theirs):
    logits, labels = batch
    loss = ExpressionLoss(MASS, **ours)(logits, torch.eye(8)[labels])
    torch.testing.assert_close(loss, expression_loss(logits, labels, torch.ones(32, dtype=torch.bool), **theirs))


def test_class_weights_have_mean_one_over_the_labels(batch):
    logits, labels = batch
    loss = ExpressionLoss(MASS, imbalance="class_weights")
    assert loss.weights[7] == 0
    torch.testing.assert_close((loss.weights * MASS).sum(), torch.tensor(1.0))
    torch.testing.assert_close(loss.weights[:2], torch.tensor([1 / 0.4, 1 / 0.2]) / 7)
    each = functional.cross_entropy(logits, labels, reduction="none") * loss.weights[labels]
    torch.testing.assert_close(loss(logits, torch.eye(8)[labels]), each.mean())


def test_logit_adjustment_adds_the_log_shares(batch):
    logits, labels = batch
    loss = ExpressionLoss(MASS, imbalance="logit_adjustment")(logits, torch.eye(8)[labels])
    prior = torch.where(MASS > 0, MASS, 0.4).log()  # a class without examples is not favoured
    torch.testing.assert_close(loss, functional.cross_entropy(logits + prior, labels))


@pytest.mark.parametrize("imbalance", ["none", "class_weights", "focal", "logit_adjustment"])
def test_a_class_without_examples_is_unlearnt(imbalance):
    """Free logits, trained on the labels alone, end lowest where there is no example."""
    logits = torch.zeros(1, 8, requires_grad=True)
    loss = ExpressionLoss(MASS, imbalance=imbalance)
    for _ in range(200):
        loss(logits, MASS[None]).backward()
        with torch.no_grad():
            logits -= 0.5 * logits.grad
            logits.grad = None
    assert logits.argmin() == 7


def test_logit_adjustment_levels_free_logits():
    """Where the picture says nothing, balanced training prefers no class that occurs."""
    logits = torch.zeros(1, 8, requires_grad=True)
    loss = ExpressionLoss(MASS, imbalance="logit_adjustment")
    for _ in range(2000):
        loss(logits, MASS[None]).backward()
        with torch.no_grad():
            logits -= logits.grad
            logits.grad = None
    assert logits[0, :7].std() < 0.05


def test_mixing():
    images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 8, 8) * 40
    targets = torch.eye(8)[:4]
    torch.manual_seed(0)
    for mixup, cutmix in ((0.8, 0.0), (0.0, 1.0)):
        mixed, soft = batch_mixing(mixup=mixup, cutmix=cutmix)(images, targets)
        torch.testing.assert_close(soft.sum(1), torch.ones(4))
        # What is mixed into the target is mixed into the picture in the same share.
        share = soft @ (torch.arange(8).float() * 40)
        torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), share)
    plain, same = batch_mixing(mixup=0.0, cutmix=0.0)(images, targets)
    assert plain is images and same is targets


def test_augmentation_is_the_samples_own(batch):
    import numpy as np

    augment = picture_augmentation(randaugment=9, colour_jitter=0.3, erasing=1.0)
    picture = torch.randint(0, 255, (3, 16, 16), dtype=torch.uint8)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, two = (augment(picture, np.random.default_rng(4)) for _ in range(2))
    assert torch.equal(one, two) and one.dtype == torch.uint8 and one.shape == picture.shape
    assert torch.equal(torch.random.get_rng_state(), before)  # the step's own randomness is untouched
    assert not torch.equal(one, augment(picture, np.random.default_rng(5)))
    assert picture_augmentation(randaugment=0, colour_jitter=0.0, erasing=0.0) is None
