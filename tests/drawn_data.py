"""A handful of drawn faces, laid out as the folder of real ones is."""

import csv
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from synthwild.face import draw_face
from synthwild.people import Action, Pose, random_identity

VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")


def face(seed: int, size: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    canvas = np.full((size, size, 3), 150, np.uint8)
    action = Action({"AU12": 1.0, "AU6": 1.0} if seed % 2 else {})
    draw_face(canvas, random_identity(rng), action, Pose(size / 2, size / 2, size / 4))
    return Image.fromarray(canvas[..., ::-1])


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return buffer.getvalue()


def write_votes(path, seeds):
    columns = {name: [0] * len(seeds) for name in VOTES}
    for place, seed in enumerate(seeds):
        columns["happiness" if seed % 2 else "neutral"][place] = 7
        columns["contempt"][place] = 3
    images = [{"bytes": png(face(seed, 48).convert("L")), "path": None} for seed in seeds]
    pq.write_table(pa.table({"name": [f"fer{seed:07}.png" for seed in seeds], "image": images, **columns}), path)


def write_data(root):
    """FER+, muxspace, London and the manifest. The first validation face is a training face."""
    for name in ("ferplus", "muxspace", "london"):
        (root / name).mkdir()
    write_votes(root / "ferplus" / "train.parquet", range(40))
    write_votes(root / "ferplus" / "validation.parquet", [3, *range(41, 48)])  # the first is a training picture
    rows = []
    for seed in range(50, 58):
        path = f"muxspace/person_{seed}.jpg"
        face(seed, 120).convert("L").save(root / path)
        label = "happiness" if seed % 2 else "neutral"
        rows.append(
            {"path": path, "label": label, "subject": f"person_{seed}", "split": "val" if seed > 53 else "train"}
        )
    for seed in (60, 61):
        face(seed, 256).save(root / "london" / f"{seed}.jpg")
        label = "happiness" if seed % 2 else "neutral"
        rows.append({"path": f"london/{seed}.jpg", "label": label, "subject": "london_60", "split": "train"})
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "subject", "split"])
        writer.writeheader()
        writer.writerows(rows)
