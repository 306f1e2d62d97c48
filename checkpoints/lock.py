"""One writer at a time: a command locks the directory that it writes, for as long as it runs.

The lock belongs to the process: the kernel drops it when the process ends, however it ends, so that the next command
takes a dead one's place. It is a POSIX lock and not `flock`, which the workers of a killed trainer would still hold.
"""

import errno
import fcntl
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Protocol, TypeVar

from checkpoints.artifact import TEMPORARY
from checkpoints.errors import READ_ONLY, UserError, described

LOCK = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP)

_held: set[Path] = set()  # by this process, to which its own locks are no obstacle


class HasOut(Protocol):
    """The options of a command that writes a directory."""

    @property
    def out(self) -> Path:
        """The directory."""


Options = TypeVar("Options", bound=HasOut)
Result = TypeVar("Result")


def sole_writer(command: Callable[[Options], Result]) -> Callable[[Options], Result]:
    """Decorate a command so that it locks its `--out` while it runs. Of several processes the first one does."""

    @wraps(command)
    def alone(config: Options) -> Result:
        if os.environ.get("RANK", "0") != "0":
            return command(config)
        with locked(config.out):
            return command(config)

    return alone


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Lock a directory, which is made if it is missing and removed again if nothing was written.

    Raises:
        UserError: Another process, or this one, is writing the directory, or it cannot be made.
    """
    directory = Path(directory)
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(described(error)) from None
    path = directory.resolve() / LOCK
    descriptor = _take(path)
    try:
        yield
    finally:
        if descriptor is not None:
            _held.discard(path)
            with suppress(OSError):
                path.unlink()  # before it is unlocked, so that nobody can lock a file that goes
            os.close(descriptor)
        with suppress(OSError):  # not empty
            for folder in made:
                folder.rmdir()


def _take(path: Path) -> int | None:
    """The descriptor of a lock file, locked; None where nothing can be locked."""
    if path in _held:
        raise _refusal(path, "this process")
    stale = path.exists()
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            if error.errno in READ_ONLY:  # a finished run may be read; who writes will be told
                return None
            raise
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, descriptor):
                break
        except BlockingIOError:
            holder = os.read(descriptor, 1000).decode(errors="replace")
            os.close(descriptor)
            raise _refusal(path, holder or "another process") from None
        except OSError as error:
            os.close(descriptor)
            if error.errno in NO_LOCKS:
                print(f"warning: {path.parent} is on a disk without locks: start no second writer", file=sys.stderr)
                return None
            raise
        os.close(descriptor)
    _held.add(path)
    if stale:
        remove_leftovers(path.parent.rglob(TEMPORARY))
    with suppress(OSError):  # a full disk: then the holder has no name
        os.ftruncate(descriptor, 0)
        command = "/".join(Path(sys.argv[0]).parts[-2:])
        os.pwrite(descriptor, f"{command} (process {os.getpid()} on {socket.gethostname()})".encode(), 0)
    return descriptor


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether a lock file is the one that was opened; its last holder may have removed it in between."""
    with suppress(FileNotFoundError):
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    return False


def _refusal(path: Path, holder: str) -> UserError:
    return UserError(f"{path.parent} is being written by {holder}: wait until it ends, or choose another --out")


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove the temporary files and folders of a writer that was killed."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
