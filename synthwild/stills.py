"""Rendered pictures of single faces, aligned as a face detector aligns them, with the intensity of every action unit.

DIR/stills.parquet is a table of pictures (`image`) with the columns `split`, `person`, `AU1` ... `AU26`; preprocessing
reads it and keeps the labels: `preprocessing/run.py --source DIR --crops --framing arcface --out FACES`.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from checkpoints.artifact import atomic_file
from checkpoints.framing import ARCFACE
from synthwild.muscles import random_action
from synthwild.people import Array, Image, Pose
from synthwild.render import RenderedFace, anatomy_of, random_face, random_light
from synthwild.scene import Lens, Look, background, occlusions
from wildaffect.tasks import AUS

FILE = "stills.parquet"
SIDE = 128
PER_PERSON = 4
CHUNK = 64
"""People per part of the work, and per row group of the file."""
HELD_OUT = 10
"""One person in this many is for validation."""
SHAKE = np.array([0.8, 0.8, 1.2, 1.0, 1.0]) * 0.02
"""Error of a detector's landmarks (eyes, nose, mouth corners), in distances between the eyes."""
LOOK = Look(occlusions=0.12, blurs=0.05)
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("split", pa.string()),
        ("person", pa.int64()),
        *((name, pa.float32()) for name in AUS),
    ]
)


def draw_still(rng: np.random.Generator, face: RenderedFace, side: int) -> tuple[Image, Pose, Array]:
    """A picture BGR ``[side, side, 3]`` of a person who does something at random, its pose and intensities ``[12]``."""
    action, extra = random_action(rng)
    points, intensities = face.moved(action, extra)
    yaw = float(np.clip(rng.normal(0, 0.26), -np.pi / 4, np.pi / 4))
    pitch = float(np.clip(rng.normal(0, 0.13), -0.4, 0.4))
    template = ARCFACE.template(side)
    template = template + rng.normal(size=(5, 2)) * SHAKE[:, None] * (template[1, 0] - template[0, 0])
    pose = face.aligned_pose(points, yaw, pitch, template)
    canvas = background(rng, side, side)
    face.draw_mesh(canvas, points, action, pose)
    return canvas, pose, intensities


def photographs(rng: np.random.Generator, face: RenderedFace, count: int, side: int) -> Iterator[tuple[Image, Array]]:
    """Pictures of one person in changing light and what the camera and the world add, and the intensities."""
    lens = Lens(rng, side, side, count, LOOK)
    hidden = occlusions(rng, count, LOOK, face.who.skin)
    for k in range(count):
        canvas, pose, intensities = draw_still(rng, face.under(random_light(rng)), side)
        for thing in hidden:
            if thing.start == k:
                thing.draw(canvas, pose)
        picture = lens.expose(canvas, k)
        if rng.random() < 0.25:  # a small face, enlarged
            small = int(side * rng.uniform(0.35, 0.8))
            shrunk = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
            picture = np.asarray(cv2.resize(shrunk, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)
        yield picture, intensities


def make_chunk(model: Path, skins: Path | None, seed: int, chunk: int) -> list[dict[str, Any]]:
    """The rows of `CHUNK` people."""
    cv2.setNumThreads(1)
    rows = []
    for person in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        rng = np.random.default_rng([seed, 23, person])
        face = random_face(rng, anatomy_of(model, skins))
        for k, (picture, intensities) in enumerate(photographs(rng, face, PER_PERSON, SIDE)):
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(50, 96))]
            name = f"{person:06d}_{k}.jpg"
            rows.append(
                {
                    "image": {"bytes": cv2.imencode(".jpg", picture, quality)[1].tobytes(), "path": name},
                    "split": "validation" if person % HELD_OUT == HELD_OUT - 1 else "train",
                    "person": person,
                    **dict(zip(AUS, intensities.tolist(), strict=True)),
                }
            )
    return rows


def write_stills(out: Path, model: Path, skins: Path | None, count: int, seed: int, workers: int) -> Iterator[int]:
    """Write DIR/stills.parquet atomically, and yield the number of pictures of each part.

    Args:
        out: DIR, which exists.
        model: file of the morphable model.
        skins: file of real people's skins; None: painted skin.
        count: of pictures; one of ten people is for validation.
        seed: of the random numbers.
        workers: processes; the result does not depend on them.
    """
    chunks = range(-(-count // (CHUNK * PER_PERSON)))
    make = partial(make_chunk, model, skins, seed)
    with atomic_file(out / FILE) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="none") as writer:
        left = count
        for rows in _parts(make, chunks, workers):
            writer.write_table(pa.Table.from_pylist(rows[:left], schema=SCHEMA))
            left -= len(rows)
            yield len(rows) + min(left, 0)


def _parts(make: partial[list[dict[str, Any]]], chunks: range, workers: int) -> Iterator[list[dict[str, Any]]]:
    if workers <= 1:
        yield from map(make, chunks)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(make, chunks)
