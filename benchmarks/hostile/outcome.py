"""Runs one hostile case, in a forked child where it may die, and judges how it ended."""

from __future__ import annotations

import contextlib
import os
import resource
import runpy
import select
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from checkpoints.errors import UserError

ROOT = Path(__file__).parents[2]
GOOD = {0, 2, 130, 143}
"""Statuses that a command may end with: done, refused, interrupted, stopped."""
LINES = 4
"""Most lines of a message."""


@dataclass
class Tally:
    """What was tried of one kind, and what fell short.

    Attributes:
        tried: Number of cases.
        short: Case -> what was wrong.
        ended: How the cases ended, by number.
    """

    tried: int = 0
    short: dict[str, str] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, ended: str, fault: str = "") -> None:
        """Count a case."""
        self.tried += 1
        self.ended[ended] += 1
        if fault:
            self.short[name] = fault[-600:]
            print(f"  fell short: {name}: {fault[-300:]}", flush=True)


@dataclass(frozen=True)
class End:
    """How a child ended: status as a shell gives it, what it printed, seconds, and whether it had to be killed."""

    status: int
    output: str
    seconds: float
    overdue: bool

    @property
    def fault(self) -> str:
        """What is wrong with it; empty if nothing is."""
        if self.overdue:
            return f"ran on for {self.seconds:.0f} s"
        if "Traceback (most recent call last)" in self.output:
            return f"traceback: {self.output}"
        if self.status not in GOOD:
            return f"status {self.status}: {self.output}"
        if self.status == 2 and not any(word in self.output for word in ("error: ", "For full helptext")):
            return f"status 2 without a message: {self.output}"
        return ""


def run_command(arguments: Sequence[str], *, seconds: float = 120.0, most_bytes: int | None = None) -> End:
    """Run a script of the repository with its command line, in a child.

    Args:
        arguments: The script and its options.
        seconds: Until it is killed.
        most_bytes: Largest file that it may write: what a full disk does to it.
    """
    return in_child(script(arguments), seconds=seconds, most_bytes=most_bytes)


def script(arguments: Sequence[str]) -> Callable[[], object]:
    """A script of the repository with its command line, as a function."""

    def run() -> None:
        sys.argv = [str(ROOT / arguments[0]), *arguments[1:]]
        runpy.run_path(sys.argv[0], run_name="__main__")

    return run


def in_child(work: Callable[[], object], *, seconds: float = 120.0, most_bytes: int | None = None) -> End:
    """Run a function in a forked child and wait for it."""
    child, output = start_child(work, most_bytes)
    return wait_for(child, output, seconds)


def start_child(work: Callable[[], object], most_bytes: int | None = None) -> tuple[int, int]:
    """Start a function in a forked child with a process group of its own; returns its id and a pipe from it."""
    reads, writes = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child:
        os.close(writes)
        return child, reads
    status = 1
    try:
        os.setsid()
        os.dup2(writes, 1)
        os.dup2(writes, 2)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        work()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(status)


def wait_for(child: int, output: int, seconds: float) -> End:
    """Read what a child prints until it ends, or until it is overdue and killed."""
    began, said, overdue = time.monotonic(), b"", False
    while True:
        left = seconds - (time.monotonic() - began)
        ready, _, _ = select.select([output], [], [], max(left, 0))
        if not ready:
            overdue = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            break
        part = os.read(output, 65536)
        if not part:
            break
        said = (said + part)[-20_000:]
    os.close(output)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    text = said.decode(errors="replace").replace("\r", "\n")
    return End(status if status >= 0 else 128 - status, text, time.monotonic() - began, overdue)


@contextlib.contextmanager
def judged(tally: Tally, name: str) -> Iterator[None]:
    """Run a reader in this process: a UserError of a few lines is fine, any other exception falls short."""
    try:
        yield
    except UserError as error:
        long = len(str(error).splitlines()) > LINES or len(str(error)) > 2000
        tally.add(name, "refused", f"a message of {len(str(error))} characters" if long else "")
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        tally.add(name, "exception", f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})")
    else:
        tally.add(name, "read")
