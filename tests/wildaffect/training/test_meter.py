from pathlib import Path

import pytest
import torch

from wildaffect.training.meter import Meter, count_flops, describe_cost, peak_flops


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


def test_cost_is_three_forward_passes_a_sample():
    model = torch.nn.Linear(1000, 1000)
    assert describe_cost(model) == "1.00 M weights"
    flops = count_flops(model, torch.zeros(1, 1000))
    assert flops == 2e6 and describe_cost(model, flops, 10**9) == "1.00 M weights; 6 PFLOP in all"


@pytest.mark.parametrize(
    ("device", "precision", "peak"),
    [
        ("NVIDIA H200", "bf16", 989e12),
        ("NVIDIA H100 PCIe", "bf16", 756e12),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312e12),
        ("NVIDIA H100 80GB HBM3", "bf16", 989e12),
        ("NVIDIA H100 NVL", "bf16", 835e12),
        ("NVIDIA H200 NVL", "bf16", 835e12),
        ("NVIDIA GH200 480GB", "bf16", 989e12),
        ("NVIDIA A10", "bf16", 125e12),
        ("NVIDIA A10G", "bf16", 70e12),
        ("NVIDIA L4", "bf16", 121e12),
        ("NVIDIA L40", "bf16", 181e12),
        ("NVIDIA L40S", "bf16", 362e12),
        ("NVIDIA RTX A1000 Laptop GPU", "bf16", 0),
        ("NVIDIA RTX A1000", "bf16", 0),
        ("NVIDIA GeForce RTX 4090", "bf16", 165e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", 0),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16", 0),
        ("NVIDIA A100-SXM4-80GB", "fp32", 0),
        ("Quadro of some kind", "bf16", 0),
    ],
)
def test_peaks(device, precision, peak):
    assert peak_flops(device, precision) == peak


@pytest.mark.parametrize(
    ("recipe", "row"), [("vit-base", "light decoder"), ("ling2024", "`ling2024` (decoder 512 x 8)")]
)
def test_the_cost_page_says_what_is_counted(recipe, row):
    product, recipes = pytest.importorskip("pretrain.build"), pytest.importorskip("pretrain.recipes")
    model = product.build(recipes.RECIPES[recipe][1]).to("meta")  # shapes are enough to count
    with torch.device("meta"):
        flops = count_flops(model, torch.zeros(1, 3, 224, 224, dtype=torch.uint8), torch.rand(1, model.num_patches))
    page = Path(__file__).parents[3] / "docs" / "cost.md"
    assert f"{row} | {3 * flops / 1e9:.1f} GFLOP a picture" in page.read_text(encoding="utf-8")
