import pytest
import torch

from wildaffect.training.averaging import moving_average


def states(*, pretrained: bool) -> list[float]:
    """The averaged weight after steps that set the weight to 1, 2 and 3; it was 0 before."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = moving_average(model, 0.5, pretrained=pretrained)
    found = []
    for step in (1, 2, 3):
        torch.nn.init.constant_(model.weight, step)
        average.update(model, step)
        found.append(float(average.module.weight))
    return found


def test_random_weights_do_not_stay_in_the_average():
    assert states(pretrained=False) == [1, 1.5, 2.25]
    assert states(pretrained=True) == [0.5, 1.25, 2.125]


def test_buffers_are_the_newest():
    model = torch.nn.BatchNorm1d(1)
    average = moving_average(model, 0.9, pretrained=True)
    model(torch.tensor([[0.0], [2.0]]))
    average.update(model, 1)
    assert float(average.module.running_mean) == pytest.approx(0.1)  # torch's own momentum


def test_no_average_is_asked_for_with_0():
    assert moving_average(torch.nn.Linear(1, 1), 0, pretrained=True) is None
