"""Processes that end with the one that started them."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
LAUNCHED = ("TORCHELASTIC_RUN_ID", "ACCELERATE_DYNAMO_MODE")
"""Variables that torchrun and `accelerate launch` set, and nobody else."""


def end_with_parent() -> None:
    """Have the kernel send this process SIGTERM when the one that started it ends, however it ends; on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def follow_launcher() -> None:
    """End with the launcher, if there is one.

    `accelerate launch` passes no signal on: a trainer that outlives it would go on writing its run.
    """
    if any(name in os.environ for name in LAUNCHED):
        end_with_parent()
