import pytest
import torch
from torch.nn import functional as F
from torchmetrics.functional.regression import concordance_corrcoef
from torchvision.ops import sigmoid_focal_loss

from checkpoints.errors import UserError
from wildaffect.tasks import TASKS
from wildaffect.tasks.losses import action_unit_loss, ccc_loss, expression_loss, log_prior, va_loss


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def masked(shape, keep=0.7):
    return torch.rand(shape) < keep


def test_ccc_loss_equals_torchmetrics_on_the_annotated_frames():
    values, labels, mask = torch.rand(2, 4000) * 2 - 1, torch.rand(2, 4000) * 2 - 1, masked((2, 4000))
    labels = labels + values  # some agreement
    expected = torch.stack([1 - concordance_corrcoef(v[m], y[m]) for v, y, m in zip(values, labels, mask, strict=True)])
    torch.testing.assert_close(ccc_loss(values, labels, mask), expected.mean(), atol=1e-3, rtol=0)


def test_va_loss_over_batch_and_window():
    values, labels, mask = torch.rand(3, 50, 2), torch.rand(3, 50, 2), masked((3, 50, 2))
    by_batch = [
        ccc_loss(values[..., i].reshape(1, -1), labels[..., i].reshape(1, -1), mask[..., i].reshape(1, -1))
        for i in (0, 1)
    ]
    torch.testing.assert_close(va_loss(values, labels, mask), sum(by_batch) / 2)
    by_window = [
        ccc_loss(values[b, :, i][None], labels[b, :, i][None], mask[b, :, i][None]) for b in range(3) for i in (0, 1)
    ]
    torch.testing.assert_close(va_loss(values, labels, mask, ccc_over="window"), sum(by_window) / 6)
    torch.testing.assert_close(va_loss(values, labels, mask, ccc_over="both"), sum(by_batch) / 4 + sum(by_window) / 12)
    with_errors = va_loss(values, labels, mask, mse=2.0)
    errors = (values - labels)[mask]
    torch.testing.assert_close(with_errors, va_loss(values, labels, mask) + 2 * errors.square().mean())


@pytest.mark.parametrize("weights", [None, torch.rand(8) + 0.1])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_torch(weights, smoothing):
    outputs, labels, mask = torch.randn(4, 30, 8), torch.randint(0, 8, (4, 30)), masked((4, 30))
    loss = expression_loss(
        outputs, torch.where(mask, labels, -1).float(), mask, class_weights=weights, label_smoothing=smoothing
    )
    expected = F.cross_entropy(outputs[mask], labels[mask], weights, label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected)


def test_focal_expression_by_its_definition():
    outputs, labels, weights = torch.randn(50, 8), torch.randint(0, 8, (50,)), torch.rand(8)
    ce = F.cross_entropy(outputs, labels, weights, reduction="none")
    expected = (0.25 * (1 - torch.exp(-ce)) ** 2 * ce).mean()
    mask = torch.ones(50, dtype=torch.bool)
    torch.testing.assert_close(expression_loss(outputs, labels, mask, focal=True, class_weights=weights), expected)
    # unweighted, p_t is the probability of the true class
    p_t = outputs.softmax(-1).gather(1, labels[:, None])[:, 0]
    expected = (0.25 * (1 - p_t) ** 2 * -p_t.log()).mean()
    torch.testing.assert_close(expression_loss(outputs, labels, mask, focal=True), expected)


def test_bce_equals_torch_with_pos_weight():
    outputs, labels, mask = torch.randn(40, 12), torch.randint(0, 2, (40, 12)).float(), masked((40, 12))
    weight = torch.rand(12) * 10
    loss = action_unit_loss(outputs, torch.where(mask, labels, -1), mask, pos_weight=weight)
    whole = F.binary_cross_entropy_with_logits(outputs, labels, pos_weight=weight, reduction="none")
    torch.testing.assert_close(loss, whole[mask].mean())
    # a true pos_weight leaves the negatives alone, unlike BCEWithLogitsLoss(weight=...)
    zeros = torch.zeros_like(labels)
    torch.testing.assert_close(
        action_unit_loss(outputs, zeros, mask, pos_weight=weight), action_unit_loss(outputs, zeros, mask)
    )
    intensities = torch.rand(40, 12)
    soft = F.binary_cross_entropy_with_logits(outputs[mask], intensities[mask])
    torch.testing.assert_close(action_unit_loss(outputs, intensities, mask), soft)
    with pytest.raises(UserError, match="focal"):
        action_unit_loss(outputs, labels, mask, focal=True, pos_weight=weight)


@pytest.mark.parametrize("choices", [{}, {"label_smoothing": 0.1}, {"focal": True}, {"class_weights": torch.rand(8)}])
def test_one_hot_targets_are_hard_labels(choices):
    outputs, classes, mask = torch.randn(50, 8), torch.randint(0, 8, (50,)), torch.rand(50) > 0.3
    hard = expression_loss(outputs, classes, mask, **choices)
    torch.testing.assert_close(expression_loss(outputs, torch.eye(8)[classes], mask, **choices), hard)
    task, labels = TASKS["expr"], classes[:, None].float()
    torch.testing.assert_close(task.loss(outputs, labels, mask[:, None], **choices), hard)
    torch.testing.assert_close(task.loss(outputs, torch.eye(8)[classes], mask[:, None], **choices), hard)


def test_soft_targets_are_torchs_own():
    outputs, votes = torch.randn(50, 8), torch.rand(50, 8).softmax(-1)
    mask = torch.rand(50) > 0.3
    torch.testing.assert_close(expression_loss(outputs, votes, mask), F.cross_entropy(outputs[mask], votes[mask]))


def test_logit_adjustment_adds_the_log_shares():
    share = torch.tensor([0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05, 0.0])
    outputs, classes = torch.randn(32, 8), torch.randint(0, 7, (32,))
    loss = expression_loss(outputs, classes, torch.ones(32, dtype=torch.bool), prior=log_prior(share))
    prior = torch.where(share > 0, share, 0.4).log()  # a class without examples is not favoured
    torch.testing.assert_close(loss, F.cross_entropy(outputs + prior, classes))


def test_sigmoid_focal_equals_torchvision():
    outputs, labels, mask = torch.randn(40, 12), torch.randint(0, 2, (40, 12)).float(), masked((40, 12))
    expected = sigmoid_focal_loss(outputs[mask], labels[mask], alpha=0.25, gamma=2, reduction="mean")
    torch.testing.assert_close(action_unit_loss(outputs, labels, mask, focal=True), expected)


@pytest.mark.parametrize("name", TASKS)
def test_what_is_not_annotated_has_no_gradient(name):
    task = TASKS[name]
    outputs = torch.randn(2, 20, task.out_dim, requires_grad=True)
    labels = torch.zeros(2, 20, task.label_width)
    labels[..., 0] = torch.rand(2, 20) if name == "va" else torch.randint(0, 2, (2, 20))
    mask = torch.ones_like(labels, dtype=torch.bool)
    mask[:, 5:] = False
    labels[~mask] = task.marker
    task.loss(outputs, labels, mask).backward()
    assert outputs.grad[:, 5:].eq(0).all() and outputs.grad[:, :5].ne(0).any()
    outputs.grad = None
    nothing = task.loss(outputs, labels, torch.zeros_like(mask))
    nothing.backward()
    assert nothing.item() == 0 and outputs.grad.isfinite().all()


def test_groups_of_one_label_do_not_dilute_the_ccc():
    """Their CCC is 0 whatever is predicted; only the groups that can be learned from count."""
    values, labels = torch.rand(3, 9), torch.rand(3, 9)
    labels[1] = 0.3
    labels[2, 4:] = -5
    labels[2, :4] = 0.1
    mask = labels > -5
    torch.testing.assert_close(ccc_loss(values, labels, mask), ccc_loss(values[:1], labels[:1], mask[:1]))
    assert ccc_loss(values[1:], labels[1:], mask[1:]) == 0
