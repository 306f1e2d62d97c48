"""Errors that a user can cause, and how a command reports them."""

import errno
import os
import select
import sys
from collections.abc import Callable, Sequence

from checkpoints.options import STRICT
from checkpoints.parent import follow_launcher


class UserError(Exception):
    """An error that the user can fix.

    The message says what is wrong, where (file, line, frame) and what to do.
    """


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the errors of a full disk."""
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
"""Numbers of the errors of a place where one may not write."""
REMEDIES = {
    **dict.fromkeys(FULL, "free some space, then run the same command again to continue"),
    **dict.fromkeys(READ_ONLY, "choose a place that you have the right to use"),
    **dict.fromkeys(
        (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL),
        "choose another path",
    ),
}
"""What to do about an error of the system."""


def guarded(main: Callable[[], object]) -> None:
    """Run a command's `main` and end it quietly.

    A :class:`UserError`, or an error of the system such as a full disk, prints one clear line and exits with status 2.
    Ctrl-C exits with 130, and a reader of the output that has gone, as in `| head`, with 141: the numbers that shells
    report for these signals.
    """
    try:
        try:
            _run(main)
        finally:
            sys.stdout.flush()  # at the interpreter's end it would be too late to catch the error
    except BrokenPipeError:
        outputs = select.poll()
        for output in (1, 2):
            outputs.register(output, 0)  # 0: only errors
        gone = [output for output, _ in outputs.poll(0)]
        if not gone:
            raise  # another pipe, such as one to a worker
        for output in gone:
            os.dup2(os.open(os.devnull, os.O_WRONLY), output)  # for what is still in a buffer
        sys.exit(141)


def _run(main: Callable[[], object]) -> None:
    follow_launcher()
    try:
        with STRICT:
            main()
        sys.stdout.flush()
    except UserError as error:
        # An error from a loader's worker has the whole traceback as its message, with ours in the last line.
        print(f"error: {str(error).rpartition(f'{UserError.__module__}.UserError: ')[2].strip()}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno is None:  # a library's, not the system's
            raise
        print(f"error: {described(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)


def described(error: OSError) -> str:
    """An error of the system as one line: the file, what is wrong and what to do."""
    remedy = REMEDIES.get(error.errno or 0)
    words = (error.filename, os.strerror(error.errno or 0), remedy)
    return ": ".join(str(word) for word in words if word)


def first_words(error: Exception) -> str:
    """The first line of a library's message, or the name of an error that has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def some(names: Sequence[str], most: int) -> str:
    """The first few names, and how many more there are, for messages."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
