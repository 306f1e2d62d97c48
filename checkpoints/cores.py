"""How many cores this process may use."""

import os


def usable_cores() -> int:
    """The cores that this process may run on: Slurm, for one, gives a job only some of the machine's."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
