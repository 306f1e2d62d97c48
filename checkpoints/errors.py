"""Errors a user can cause, and how a command ends on one."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can put right.

    The message says what is wrong, where (file, line, frame) and what to do.
    """


def guarded(main: Callable[[], object]) -> None:
    """Run a command's `main`; end with one clear line and status 2 on a :class:`UserError`, 130 on Ctrl-C."""
    try:
        main()
    except UserError as error:
        # A loader's worker sends its whole traceback as the message, ours in its last line.
        print(f"error: {str(error).rpartition(f'{UserError.__module__}.UserError: ')[2].strip()}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
