"""What a training run measures about itself between two records."""

import re
import time
from collections.abc import Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from wildaffect.report.formats import scaled

# Dense bf16 peak of GPUs in FLOP/s, from their data sheets (without sparsity). The first entry whose words are in the
# device's name is used.
PEAKS = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10": 125e12,
    "A10G": 70e12,
    "RTX 5090": 210e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


def count_flops(model: torch.nn.Module, *inputs: torch.Tensor) -> float:
    """Floating-point operations of one forward pass in evaluation mode."""
    training = model.training
    with FlopCounterMode(display=False) as counter:  # under `no_grad` it fails if an input is a parameter
        model.eval()(*inputs)
    model.train(training)
    return float(counter.get_total_flops())


def describe_cost(model: torch.nn.Module, flops: float = 0.0, samples: int = 0) -> str:
    """Number of weights, and the computation of a run if the `flops` of one sample's forward pass are known.

    A training step counts as three forward passes.
    """
    text = f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M weights"
    return f"{text}; {scaled(3 * flops * samples, 'FLOP')} in all" if flops else text


def peak_flops(device: str, precision: str) -> float:
    """Dense peak of a device in FLOP/s; 0 if unknown.

    Args:
        device: The device's name, as `torch.cuda.get_device_name` gives it.
        precision: `bf16` or `fp32`; peaks are known only for `bf16`.
    """
    if precision != "bf16" or re.search(r"\b(Laptop|MIG)\b", device):  # slower than the full card of that name
        return 0.0
    return next((peak for name, peak in PEAKS.items() if re.search(rf"\b{name}\b", device)), 0.0)


class Meter:
    """Averages since the last record: loss, rate, fraction of time spent waiting for data, FLOP/s.

    Args:
        batch_size: Samples per optimizer step over all processes.
        flops: Floating-point operations of one sample's forward pass; 0 if unknown.
        peak: Peak FLOP/s of all devices together; 0 if unknown.
        before: Loss and gradient norm of each step since the last record, in the process that this one resumes.

    Attributes:
        steps: Loss and gradient norm of each step since the last record.
    """

    def __init__(
        self, batch_size: int, flops: float, peak: float = 0.0, before: Sequence[Sequence[float]] = ()
    ) -> None:
        self.batch_size, self.flops, self.peak = batch_size, flops, peak
        self._reset()
        self.steps += [(loss, norm) for loss, norm in before]
        self._before = len(self.steps)

    def _reset(self) -> None:
        self._start = time.perf_counter()
        self._wait = 0.0
        self._before = 0
        self.steps: list[tuple[float, float]] = []

    def waiting(self) -> "Meter":
        """Context manager that times the fetching of a batch."""
        return self

    def __enter__(self) -> None:
        self._wait_from = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._wait += time.perf_counter() - self._wait_from

    def add(self, loss: float, grad_norm: float) -> None:
        """Count one optimizer step."""
        self.steps.append((loss, grad_norm))

    def read(self) -> dict[str, float]:
        """Return the averages and start over; a training step counts as three forward passes."""
        seconds = time.perf_counter() - self._start
        samples = (len(self.steps) - self._before) * self.batch_size
        losses, norms = zip(*self.steps, strict=True)
        record = {
            "loss": sum(losses) / len(losses),
            "grad_norm": sum(norms) / len(norms),
            "images_per_s": samples / seconds,
            "data_wait": self._wait / seconds,
        }
        if self.flops:
            achieved = 3 * self.flops * samples / seconds
            record["tflops"] = achieved / 1e12
            if self.peak:
                record["peak_share"] = achieved / self.peak
        self._reset()
        return record
