"""A few seconds of `make faults`: damaged texts are refused in a line, or read as they stand."""

import pytest

from benchmarks import faults_text
from benchmarks.fault_readers import READERS, Reader


@pytest.mark.parametrize("seed", [11, 12])
def test_damaged_texts(seed):
    counts, faults = faults_text.run(10 * len(READERS), seed)
    assert not faults
    assert all(sum(outcomes.values()) == 10 for outcomes in counts.values())


def test_a_lenient_reader_is_found_out(monkeypatch):
    lenient = Reader(READERS["va annotation"].make, "a.txt", lambda path: [], READERS["va annotation"].expect)
    monkeypatch.setattr(faults_text, "READERS", {"lenient": lenient, "broken": Reader(lenient.make, "a.txt", int)})
    counts, faults = faults_text.run(60, 0)
    assert {"taken", "wrong value"} <= counts["lenient"].keys() and counts["broken"]["uncaught"] == 30 and faults
