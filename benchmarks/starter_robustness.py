"""One face in several pictures: does the answer stay? `python benchmarks/starter_robustness.py --pictures FOLDER`.

Each picture of a face is also given as 48 px, as 4,000 px, grey, cropped tightly and with a wide surround. Reported is
the share of faces whose probabilities stay within .1 of the original's, and by how much they move.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tyro

from checkpoints.artifact import write_json
from checkpoints.errors import UserError, guarded
from preprocessing.faces import PICTURE_SUFFIXES
from preprocessing.pictures import read_picture
from wildaffect import Predictor
from wildaffect.tasks import EXPRESSIONS

RESULT = Path("benchmarks/results/starter_robustness.json")
CLOSE = 0.1
LARGE = 4000
COLUMNS = [f"p_{name}" for name in EXPRESSIONS]


@dataclass(frozen=True)
class Robustness:
    """Measure the starter weights, or a bundle, on pictures of faces."""

    pictures: Path
    """Folder of pictures with one face each."""
    bundle: Path = Path("checkpoints/starter")
    """Bundle to measure."""
    count: int = 200
    """Pictures to take, at even distances in the order of names."""
    large: int = 40
    """How many of them to enlarge to 4,000 px as well, which takes seconds each."""
    out: Path = RESULT
    """Where to record the results as JSON."""


def variants(picture: np.ndarray, box: np.ndarray) -> dict[str, np.ndarray]:
    """The same face in other pictures: RGB uint8; `box` is x1, y1, x2, y2."""
    height, width = picture.shape[:2]
    x1, y1 = np.maximum(box[:2], 0).astype(int)
    x2, y2 = np.minimum(np.ceil(box[2:]), [width, height]).astype(int)
    tight = picture[y1:y2, x1:x2]
    room = max(height, width) // 2
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = 48 / max(height, width)
    return {
        "48 px": cv2.resize(picture, None, fx=small, fy=small, interpolation=cv2.INTER_AREA),
        "grey": cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB),
        "tight crop": tight,
        "wide crop": cv2.copyMakeBorder(picture, room, room, room, room, cv2.BORDER_REFLECT_101),
        "4000 px": cv2.resize(picture, None, fx=LARGE / width, fy=LARGE / width, interpolation=cv2.INTER_CUBIC),
    }


def main(config: Robustness) -> dict[str, Any]:
    """Measure, print and record.

    Raises:
        UserError: The folder has no pictures, or a face was found in none of them.
    """
    paths = sorted(path for path in config.pictures.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    if not paths:
        raise UserError(f"--pictures {config.pictures} has no pictures")
    predictor = Predictor(config.bundle)
    paths = [paths[k] for k in np.unique(np.linspace(0, len(paths) - 1, config.count).round().astype(int))]
    moved: dict[str, list[float]] = {}

    def ask(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        (result,) = predictor.predict_many([picture], progress=False)
        row = result.table.slice(0, 1)
        if not row["face"][0].as_py():
            return None
        box = np.array([row[name][0].as_py() for name in ("x1", "y1", "x2", "y2")])
        return np.array([row[name][0].as_py() for name in COLUMNS]), box

    for number, path in enumerate(paths):
        picture = read_picture(path)
        if (first := ask(picture)) is None:
            continue
        for name, other in variants(picture, first[1]).items():
            if name != "4000 px" or number % max(1, len(paths) // config.large) == 0:
                answer = ask(other)
                moved.setdefault(name, []).append(1.0 if answer is None else np.abs(answer[0] - first[0]).max())
    if not moved:
        raise UserError(f"--pictures {config.pictures}: no face was found in any of {len(paths)} pictures")
    result = {
        name: {
            "faces": len(values),
            "found": float(np.mean(np.array(values) < 1)),
            "within_0.1": float(np.mean(np.array(values) <= CLOSE)),
            "median_change": float(np.median(values)),
        }
        for name, values in moved.items()
    }
    for name, part in result.items():
        print(
            f"{name:12}{part['faces']:5} faces, within .1: {part['within_0.1']:.2f}, median {part['median_change']:.3f}"
        )
    write_json(config.out, {"pictures": config.pictures.name, **result})
    return result


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Robustness, description=__doc__)))
