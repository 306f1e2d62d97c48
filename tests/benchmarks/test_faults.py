"""A few seconds of each kind of `make faults`; and that it notices what falls short."""

import os
import time
from functools import partial

import numpy as np
import pytest

pytest.importorskip("facenet_pytorch")

from benchmarks.hostile.artifacts import damage_artifacts
from benchmarks.hostile.kills import kill
from benchmarks.hostile.line import Line, make_line
from benchmarks.hostile.media import fuzz_media
from benchmarks.hostile.outcome import Tally, in_child, judged, run_command
from benchmarks.hostile.places import fill_disks, odd_places, pairs
from checkpoints.errors import UserError
from tests.figures import figures_left_out


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    made = Line(tmp_path_factory.mktemp("faults") / "line")
    with figures_left_out():
        end = in_child(partial(make_line, made.root), seconds=600)
    assert end.status == 0, end.output
    return made


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_what_falls_short_is_noticed(tmp_path):
    def full():
        raise ValueError("no space")

    assert "traceback" in in_child(full).fault
    assert "status 137" in in_child(lambda: os.kill(os.getpid(), 9)).fault
    assert "ran on" in in_child(lambda: time.sleep(60), seconds=0.1).fault
    assert "without a message" in in_child(lambda: os._exit(2)).fault
    assert run_command(["checkpoints/convert.py", "nothing", "--out", str(tmp_path)]).fault == ""
    tally = Tally()
    for number, error in enumerate((UserError("short"), UserError("long\n" * 9), KeyError("kind"))):
        with judged(tally, str(number)):
            raise error
    assert tally.tried == 3 and list(tally.short) == ["1", "2"]


def test_media(tmp_path, rng):
    tally = fuzz_media(tmp_path, rng, 60)
    assert tally.tried > 60 and not tally.short


def test_artifacts(line, tmp_path, rng):
    tally = damage_artifacts(line, tmp_path, rng, most=70)
    assert tally.tried >= 50 and not tally.short


def test_places(line, tmp_path, rng):
    for tally in (
        fill_disks(line, tmp_path / "full", ["features", "convert"], rng, 1),
        odd_places(line, tmp_path / "odd", ["export"]),
        pairs(line, tmp_path / "pairs", ["features"]),
        kill(line, tmp_path / "kills", ["features"], rng, 1),
    ):
        assert tally.tried and not tally.short
