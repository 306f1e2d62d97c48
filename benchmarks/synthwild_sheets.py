"""Contact sheets of SynthWild, on which a person can check that identities and action units can be told apart."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro

from checkpoints.artifact import atomic_file
from checkpoints.errors import guarded
from synthwild.face import draw_face
from synthwild.people import Action, Identity, Image, Pose, random_identity
from synthwild.process import PROTOTYPES
from synthwild.scene import background, light_map
from wildaffect.tasks import AUS, EXPRESSIONS

CELL, TITLE = 144, 16


@dataclass(frozen=True)
class Config:
    """Draw every expression and every action unit of some generated people."""

    out: Path = Path("docs/images/synthwild.png")
    """NAME.png: writes NAME_identities.png and NAME_aus.png."""
    seed: int = 0
    """Seed of the people."""


def title(text: str) -> Image:
    """A strip with a caption."""
    strip = np.full((TITLE, CELL, 3), 255, np.uint8)
    cv2.putText(strip, text, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return strip


def portrait(who: Identity, au: dict[str, float], room: Image, pose: Pose) -> Image:
    """One person with the given action units."""
    canvas = room.copy()
    draw_face(canvas, who, Action(au), pose)
    return canvas


def identity_sheet(seed: int, people: int = 6) -> Image:
    """People (rows) by expressions (columns), with the rooms, light and poses of the videos."""
    rows = [np.hstack([title(name) for name in EXPRESSIONS])]
    for k in range(people):
        rng = np.random.default_rng([seed, 101, k])
        who, room, light = random_identity(rng), background(rng, CELL, CELL), light_map(rng, CELL, CELL)
        cells = []
        for prototype in PROTOTYPES:
            yaw, pitch, roll = rng.normal(0, [0.2, 0.08, 0.08])
            pose = Pose(CELL / 2, CELL * 0.52, CELL * 0.25, yaw, pitch, roll)
            cells.append(cv2.multiply(portrait(who, prototype, room, pose), light, scale=1 / 128))
        rows.append(np.hstack(cells))
    return np.vstack(rows)


def au_sheet(seed: int, people: int = 3) -> Image:
    """Each action unit alone at full intensity, beside the same face at rest; two rows per person."""
    room = np.full((CELL, CELL, 3), 170, np.uint8)
    pose = Pose(CELL / 2, CELL * 0.5, CELL * 0.3)
    rows = []
    for k in range(people):
        who = random_identity(np.random.default_rng([seed, 202, k]))
        for names in (("rest", *AUS[:6]), ("rest", *AUS[6:])):
            rows.append(np.hstack([title(name) for name in names]))
            rows.append(np.hstack([portrait(who, {} if name == "rest" else {name: 1.0}, room, pose) for name in names]))
    return np.vstack(rows)


def main(config: Config) -> None:
    """Draw and write both sheets."""
    for name, sheet in (("identities", identity_sheet(config.seed)), ("aus", au_sheet(config.seed))):
        path = config.out.with_name(f"{config.out.stem}_{name}.png")
        with atomic_file(path) as temporary:
            temporary.write_bytes(cv2.imencode(".png", sheet, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())
        print(path)


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))
