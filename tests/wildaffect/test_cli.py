import doctest
import re
import subprocess
import sys

import pytest

import wildaffect
from tests import processes
from tests.wildaffect.inference.conftest import encoder, heads  # noqa: F401 - fixtures
from tests.wildaffect.inference.test_clip import TIMES, frames_of, write_clip


def test_the_predictors_doctest_runs(heads, tmp_path):  # noqa: F811
    pytest.importorskip("facenet_pytorch")
    clip = write_clip(tmp_path / "clip.mp4", TIMES[:20])
    example = doctest.DocTestFinder(recurse=False).find(
        wildaffect.Predictor, globs={"heads": heads, "clip": clip, "frames_of": frames_of}
    )
    assert sum(len(test.examples) for test in example) == 6
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in example:
        runner.run(test)
    assert runner.summarize().failed == 0


def test_doctor_says_everything_and_ends_well():
    done = processes.run("-m", "wildaffect.cli", "doctor")
    assert done.returncode == 0, done.stderr
    for word in ("wildaffect 0", "torch", "CPU:", "auto means", "MTCNN", "libx264", "GiB free"):
        assert word in done.stdout, word


def test_the_command_starts_without_torch():
    code = (
        "import sys, wildaffect.cli\n"
        "sys.argv = ['wildaffect', '--help']\n"
        "try: wildaffect.cli.main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'cv2' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("predict", "live", "app", "export", "doctor"):
        assert re.search(rf"\b{name}\b", done.stdout)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError):
        wildaffect.Nothing  # noqa: B018
