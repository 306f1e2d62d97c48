import os
import subprocess
import sys

import pytest

from checkpoints.cores import usable_cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be tied to cores here")
def test_cores_that_are_given_to_others_do_not_count():
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
    code += "from checkpoints.cores import usable_cores; print(usable_cores())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "1\n"


def test_without_affinity_all_cores_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert usable_cores() == 7
