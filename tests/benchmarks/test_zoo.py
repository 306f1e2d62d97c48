"""The table of encoders in the documentation shows what was measured."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.zoo import ENCODERS, Config, measure

ROOT = Path(__file__).parents[2]
MEASURED = json.loads((ROOT / "benchmarks" / "results" / "zoo.json").read_text())["encoders"]
TABLE = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8").split("## The starter weights")[0]


def test_an_encoder_is_counted_and_timed():
    result = measure(ENCODERS["demo"](), replace(Config(), rounds=1), bf16=False)
    assert (result["weights"], result["pixels"]) == (MEASURED["demo"]["weights"], 64)
    assert result["ms_per_face"] > 0


@pytest.mark.parametrize("name", ENCODERS)
def test_the_table_shows_what_was_measured(name):
    (row,) = (line for line in TABLE.splitlines() if re.search(rf"`(checkpoints/)?{name}`", line.split(" | ")[0]))
    cells = [cell.strip() for cell in row.split("|")]
    weights, pace = MEASURED[name]["weights"] / 1e6, MEASURED[name]["ms_per_face"]
    assert cells[2].startswith((f"{weights:.1f} M", f"{weights:.0f} M"))
    assert cells[3] == f"{pace:,.0f}"
