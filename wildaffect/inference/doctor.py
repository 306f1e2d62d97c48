"""What this machine can do, and what is missing: the first thing to run, and to paste into a question."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "datasets",
    "numpy",
    "opencv-python-headless",
    "av",
    "facenet-pytorch",
    "gradio",
    "onnxruntime",
)
EXTRAS = {
    "facenet-pytorch": "pip install --no-deps facenet-pytorch (face detection)",
    "gradio": "pip install 'wildaffect[app]' (the web page)",
    "onnxruntime": "pip install 'wildaffect[export]' (ONNX)",
}


def print_findings() -> None:
    """Print every check; a problem is printed, not raised."""
    for check in (versions, devices, precision, detection, video, disk):
        name = check.__name__
        for number, line in enumerate(check()):
            print(f"{'' if number else name:<11}{line}", flush=True)


def versions() -> list[str]:
    """Wildaffect, Python and the packages it stands on."""
    found = [f"wildaffect {_version('wildaffect')}, Python {platform.python_version()} on {platform.platform()}"]
    for name in PACKAGES:
        number = _version(name)
        if number is None and name == "opencv-python-headless":
            number = _version("opencv-python")  # either of the two will do
        missing = f"not installed: {EXTRAS[name]}" if name in EXTRAS else "MISSING: install wildaffect again"
        found.append(f"{name} {number or missing}")
    return found


def devices() -> list[str]:
    """Processor, memory and GPUs."""
    import torch

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
    from wildaffect.training.launch import choose_precision

    chosen, reason = choose_precision("auto")
    return [f"auto means {chosen}: {reason}"]


def detection() -> list[str]:
    """Whether MTCNN loads and runs."""
    import numpy as np

    from checkpoints.errors import UserError
    from preprocessing.detect import MTCNN

    try:
        MTCNN().detect([np.zeros((64, 64, 3), np.uint8)])
    except UserError as error:
        return [f"no: {error}"]
    return ["MTCNN loads and runs"]


def video() -> list[str]:
    """Whether annotated videos can be written in the form that browsers play."""
    import av

    encoders = [name for name in ("libx264", "aac") if name in av.codecs_available]
    return [
        f"libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))} writes {', '.join(encoders) or 'no H.264'}"
    ]


def disk() -> list[str]:
    """Free space where the command was started."""
    usage = shutil.disk_usage(Path.cwd())
    return [f"{usage.free / 2**30:.1f} GiB free of {usage.total / 2**30:.1f} GiB in the current folder"]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


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
