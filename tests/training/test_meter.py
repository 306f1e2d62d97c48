import pytest

from training.meter import Meter, peak_flops


def test_means_and_share_of_peak():
    meter = Meter(batch_size=4, flops=1e9, peak=1e12)
    for loss, norm in ((1.0, 2.0), (3.0, 4.0)):
        with meter.waiting():
            pass
        meter.add(loss, norm)
    record = meter.read()
    assert record["loss"] == 2 and record["grad_norm"] == 3
    assert record["tflops"] == pytest.approx(3 * 1e9 * record["images_per_s"] / 1e12)
    assert record["peak_share"] == pytest.approx(record["tflops"])
    assert 0 <= record["data_wait"] < 1


def test_what_is_unknown_is_not_recorded():
    meter = Meter(batch_size=4, flops=0)
    meter.add(1, 1)
    assert not {"tflops", "peak_share"} & meter.read().keys()


@pytest.mark.parametrize(
    ("device", "precision", "peak"),
    [
        ("NVIDIA H200", "bf16", 989e12),
        ("NVIDIA H100 PCIe", "bf16", 756e12),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312e12),
        ("NVIDIA A10G", "bf16", 125e12),
        ("NVIDIA A100-SXM4-80GB", "no", 0),
        ("Quadro of some kind", "bf16", 0),
    ],
)
def test_peaks(device, precision, peak):
    assert peak_flops(device, precision) == peak
