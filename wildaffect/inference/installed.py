"""Which packages are installed, in which versions. This module loads none of them, so it works if one is missing."""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

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
    "transformers",
)
EXTRAS = {
    "gradio": "pip install 'wildaffect[app]' (the web page)",
    "onnxruntime": "pip install 'wildaffect[export]' (ONNX)",
    "transformers": "pip install 'wildaffect[speech]' (speech models)",
}


def print_versions() -> None:
    """Print the versions of Wildaffect, Python and the packages that Wildaffect needs."""
    found = [f"wildaffect {_version('wildaffect')}, Python {platform.python_version()} on {platform.platform()}"]
    for name in PACKAGES:
        number = _version(name)
        if number is None and name == "opencv-python-headless":
            number = _version("opencv-python")  # either of the two will do
        missing = f"not installed: {EXTRAS[name]}" if name in EXTRAS else "MISSING: install wildaffect again"
        found.append(f"{name} {number or missing}")
    print_check("versions", found)


def print_check(name: str, lines: Iterable[str]) -> None:
    """Print the lines of one check, with its name in front of the first."""
    for number, line in enumerate(lines):
        print(f"{'' if number else name:<11}{line}", flush=True)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
