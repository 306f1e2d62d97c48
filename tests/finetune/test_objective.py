"""The loss of stage 2, its mixing and its augmentation."""

import numpy as np
import pytest
import torch
from torch import nn

from finetune.augment import batch_mixing, picture_augmentation
from finetune.objective import Objective

SHARE = torch.tensor([0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05, 0.0])


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(32, 8, generator=generator), torch.randint(0, 7, (32,), generator=generator)


class Free(nn.Module):
    """Logits that do not depend on the input."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(1, 8))

    def forward(self, images):
        return self.logits.expand(len(images), -1)


def trained(imbalance, steps, lr):
    """Free logits, trained only on the class shares."""
    network = Free()
    device = torch.device("cpu")
    settings = {"label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0, "device": device}
    objective = Objective(SHARE.numpy(), np.ones(8), imbalance=imbalance, **settings)
    batch = {"images": torch.zeros(1, 3, 2, 2, dtype=torch.uint8), "targets": SHARE[None]}
    for _ in range(steps):
        objective(network, batch).backward()
        with torch.no_grad():
            network.logits -= lr * network.logits.grad
            network.logits.grad = None
    return network.logits.detach()[0]


@pytest.mark.parametrize("imbalance", ["none", "logit_adjustment"])
def test_a_class_without_examples_is_unlearnt(imbalance):
    assert trained(imbalance, 200, 0.5).argmin() == 7


def test_logit_adjustment_prefers_no_class_that_occurs():
    assert trained("logit_adjustment", 2000, 1.0)[:7].std() < 0.05 < trained("none", 2000, 1.0)[:7].std()


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
    augment = picture_augmentation(framing_jitter=0.1, blur=0.5, randaugment=9, colour_jitter=0.3, erasing=1.0)
    picture = torch.randint(0, 255, (3, 16, 16), dtype=torch.uint8)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, two = (augment(picture, np.random.default_rng(4)) for _ in range(2))
    assert torch.equal(one, two) and one.dtype == torch.uint8 and one.shape == picture.shape
    assert torch.equal(torch.random.get_rng_state(), before)  # the step's own randomness is untouched
    assert not torch.equal(one, augment(picture, np.random.default_rng(5)))


def two_kinds(faces):
    """Targets of so many faces with votes and as many with action units, of which the last lacks one."""
    votes, intensities = torch.rand(faces, 8).softmax(1), torch.rand(faces, 12)
    targets = torch.full((2 * faces, 20), torch.nan)
    targets[:faces, :8], targets[faces:, 8:] = votes, intensities
    targets[-1, 8] = torch.nan
    return targets


def objective_of(targets, mixup=0.0):
    labelled = (~targets.isnan()).float().mean(0).numpy()
    settings = {"label_smoothing": 0.0, "mixup": mixup, "cutmix": 0.0, "device": torch.device("cpu")}
    return Objective(SHARE.numpy(), labelled, imbalance="none", **settings)


def test_each_frame_teaches_what_it_is_labelled_for():
    """Two faces with votes and two with action units: the sum of both tasks' means, whatever the other part says."""
    torch.manual_seed(0)
    targets, logits = two_kinds(2), torch.randn(4, 20)
    images = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    found = objective_of(targets)(lambda images: logits, {"images": images, "targets": targets})
    expressions = -(targets[:2, :8] * logits[:2, :8].log_softmax(1)).sum(1).mean()
    element = nn.functional.binary_cross_entropy_with_logits(
        logits[2:, 8:], targets[2:, 8:].nan_to_num(), reduction="none"
    )
    element[1, 0] = 0
    torch.testing.assert_close(found, expressions + element.sum() / 23)


@pytest.mark.parametrize("size", [1, 4, 8])
def test_loss_of_a_step_does_not_depend_on_its_micro_batches(size):
    torch.manual_seed(0)
    targets, weights = two_kinds(8), torch.randn(1, 20)
    images = torch.arange(16, dtype=torch.uint8).view(16, 1, 1, 1).expand(16, 3, 2, 2)

    def network(images):
        return images[:, 0, 0, :1].float() * weights

    objective, order = objective_of(targets), torch.randperm(16)
    whole = objective(network, {"images": images, "targets": targets})
    parts = [objective(network, {"images": images[o], "targets": targets[o]}) for o in order.split(size)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_mixing_leaves_every_face_its_kind_of_label():
    targets = two_kinds(8)[torch.randperm(16)]
    seen = []

    def network(images):
        seen.append(images)
        return torch.zeros(len(images), 20, requires_grad=True)

    images = torch.where(targets[:, :1].isnan(), 200.0, 100.0).view(16, 1, 1, 1).expand(16, 3, 2, 2)
    objective = objective_of(targets, mixup=1.0)
    found = objective(network, {"images": images, "targets": targets})
    torch.testing.assert_close(seen[0].mean(dim=(1, 2, 3)), torch.tensor([100.0] * 8 + [200.0] * 8))
    # Even logits: no label was lost if the loss is that of all faces.
    torch.testing.assert_close(
        found.detach(), torch.log(torch.tensor([8.0]))[0] + torch.log(torch.tensor([2.0]))[0], rtol=0.01, atol=0
    )
