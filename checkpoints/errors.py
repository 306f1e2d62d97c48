"""Errors that a user can cause, and how a command reports them."""

import sys
from collections.abc import Callable, Sequence


class UserError(Exception):
    """An error that the user can fix.

    The message says what is wrong, where (file, line, frame) and what to do.
    """


def guarded(main: Callable[[], object]) -> None:
    """Run a command's `main`; a :class:`UserError` prints one clear line and exits with status 2, Ctrl-C with 130."""
    try:
        main()
    except UserError as error:
        # An error from a loader's worker has the whole traceback as its message, with ours in the last line.
        print(f"error: {str(error).rpartition(f'{UserError.__module__}.UserError: ')[2].strip()}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)


def some(names: Sequence[str], most: int) -> str:
    """The first few names, and how many more there are, for messages."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
