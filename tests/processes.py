"""Commands in processes of their own that start in milliseconds, because torch is there already.

They are forked from a server that has imported what commands import and has done nothing else, so a child is as fresh
as an interpreter: no thread, no random state, no setting of a test.
"""

import atexit
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.figures import PICTURE
from wildaffect.report import page

ROOT = Path(__file__).parents[1]
SECONDS = 300
SERVER = multiprocessing.get_context("forkserver")
"""Also serves code that spawns processes: `monkeypatch` its `get_context`."""
SERVER.set_forkserver_preload(
    ["preprocessing.workers", "pretrain.train", "finetune.train", "features.extract", "temporal.train"]
)


class Started:
    """A command at work, in a session of its own; the interface of `subprocess.Popen` as far as tests need it."""

    def __init__(self, words: Sequence[object], cwd: Path, env: Mapping[str, str]):
        self._folder = tempfile.TemporaryDirectory()
        self.args = [str(word) for word in words]
        work = (self.args, str(cwd), dict(env), self._folder.name)
        self._process: BaseProcess = SERVER.Process(target=_interpret, args=work)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float = SECONDS) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout, self.said("stdout"), self.said("stderr"))
        return self._process.exitcode

    def said(self, stream: str) -> str:
        path = Path(self._folder.name) / stream
        return path.read_text() if path.exists() else ""


def start(*words: object, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> Started:
    """Start a script, `-m module` or `-c code` with its arguments, as `python WORDS` does."""
    return Started(words, cwd, os.environ if env is None else env)


def run(*words: object, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run such a command to its end."""
    process = start(*words, cwd=cwd, env=env)
    return subprocess.CompletedProcess(process.args, process.wait(), process.said("stdout"), process.said("stderr"))


def run_ranks(*words: object, ranks: int = 2) -> str:
    """Run a command as `torchrun --nproc_per_node` does, on CPUs; returns what the first process printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "ACCELERATE_USE_CPU": "true"}
    sizes = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(ranks))
    processes = [
        start(*words, env={**os.environ, **where, **sizes, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(ranks)
    ]
    for process in processes:
        assert process.wait() == 0, process.said("stderr")
    return processes[0].said("stdout")


def _interpret(words: list[str], cwd: str, env: dict[str, str], folder: str) -> None:
    """In the child: become `python WORDS`, without drawing figures."""
    page.png = lambda _image: PICTURE
    os.setsid()
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None  # as `TMPDIR` has it
    os.chdir(cwd)
    try:
        _run(*words)
    finally:  # as an interpreter ends; a process of `multiprocessing` would wait for pools that nobody has told to end
        threading._shutdown()
        atexit._run_exitfuncs()


def _run(first: str, *rest: str) -> None:
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.path.insert(0, "")
        exec(compile(rest[0], "<string>", "exec"), sys.modules["__main__"].__dict__)
    elif first == "-m":
        sys.argv = [*rest]
        sys.path.insert(0, "")
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        sys.path.insert(0, str(Path(first).resolve().parent))
        runpy.run_path(first, run_name="__main__")
