"""A contact sheet of rendered faces, on which a person can check that each action unit shows, and how strongly."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro

from checkpoints.artifact import atomic_file
from checkpoints.errors import guarded
from checkpoints.framing import ARCFACE
from synthwild.people import Action, Image
from synthwild.render import anatomy_of, random_face
from wildaffect.tasks import AUS


@dataclass(frozen=True)
class Config:
    """Draw the action units (rows) of several people at intensities of 0, a quarter, ... 1 (columns)."""

    model: Path
    """The morphable model that synthwild/morphable.py wrote."""
    out: Path = Path("docs/images/rendered_aus.jpg")
    """The sheet."""
    people: int = 2
    """Number of people, side by side."""
    side: int = 80
    """Side of a picture in pixels."""
    seed: int = 0
    """Seed of the people."""


def sheet(config: Config) -> Image:
    """The sheet as a BGR picture."""
    blocks = []
    for k in range(config.people):
        face = random_face(np.random.default_rng([config.seed, 303, k]), anatomy_of(config.model))
        rows = []
        for name in AUS:
            cells = []
            for intensity in np.linspace(0, 1, 5):
                cell = np.full((config.side, config.side, 3), 170, np.uint8)
                action = Action({name: float(intensity)})
                points, _ = face.moved(action)
                pose = face.aligned_pose(points, 0.2, 0.0, ARCFACE.template(config.side))
                face.draw_mesh(cell, points, action, pose)
                cells.append(cell)
            at = (3, config.side - 4)
            cv2.putText(cells[0], name, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
            rows.append(np.hstack(cells))
        blocks.append(np.vstack(rows))
    return np.hstack(blocks)


def main(config: Config) -> None:
    """Draw and write the sheet."""
    with atomic_file(config.out) as temporary:
        temporary.write_bytes(cv2.imencode(".jpg", sheet(config), [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())
    print(config.out)


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))
