"""What this machine can do: devices, precision, face detection, video and disk."""

import os
import platform
import shutil
import sys
from pathlib import Path

import av
import numpy as np
import torch

from checkpoints.errors import UserError
from wildaffect.inference.installed import print_check
from wildaffect.training.launch import choose_precision

try:
    from preprocessing.mtcnn import MTCNN
except UserError as error:
    NO_DETECTOR = str(error)
else:
    NO_DETECTOR = ""


def print_findings() -> None:
    """Print every check; a problem is printed, not raised."""
    for check in (devices, precision, detection, video, disk):
        print_check(check.__name__, check())


def devices() -> list[str]:
    """Processor, memory and GPUs."""
    memory = _memory()
    lines = [
        f"CPU: {_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
        + (f", {memory / 2**30:.1f} GiB of memory" if memory else "")
    ]
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        lines.append(f"cuda:{number}: {properties.name}, {properties.total_memory / 2**30:.1f} GiB")
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        lines.append(f"no CUDA device ({built})")
    return lines


def precision() -> list[str]:
    """What `--precision auto` means here, and why."""
    chosen, reason = choose_precision("auto")
    return [f"auto means {chosen}: {reason}"]


def detection() -> list[str]:
    """Whether MTCNN loads and runs."""
    if NO_DETECTOR:
        return [f"no: {NO_DETECTOR}"]
    MTCNN().detect([np.zeros((64, 64, 3), np.uint8)])
    return ["MTCNN loads and runs"]


def video() -> list[str]:
    """Whether annotated videos can be written in the form that browsers play."""
    encoders = [name for name in ("libx264", "aac") if name in av.codecs_available]
    return [
        f"libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))} writes {', '.join(encoders) or 'no H.264'}"
    ]


def disk() -> list[str]:
    """Free space where the command was started."""
    usage = shutil.disk_usage(Path.cwd())
    return [f"{usage.free / 2**30:.1f} GiB free of {usage.total / 2**30:.1f} GiB in the current folder"]


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not POSIX
        return None


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
