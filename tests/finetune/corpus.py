"""A faces store whose pictures show their labels, labels for it, and encoders small enough for tests."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from checkpoints.encoder import save_encoder
from checkpoints.network import Encoder, EncoderConfig
from finetune.recipes import DEMO
from preprocessing.write_faces import finish_store, write_shard
from wildaffect.tasks import EXPRESSIONS

SIZE = 32
# Sequence -> frames; a second subject comes in late.
TRAIN = {f"train{n}": 12 for n in range(6)} | {"two": 12, "two_right": 8}
VALIDATION = {"val0": 12, "val1": 12}
LATE = 3
TINY = replace(
    DEMO, epochs=6.0, batch_size=16, micro_batch_size=16, frames_per_video=8, evaluations=4, save_every=2, log_every=1
)
TINY = replace(TINY, workers=0, precision="fp32", pooling="average", ema_decay=0.5, lr=3e-3)
TINY = replace(TINY, imbalance="logit_adjustment")


def label_of(id: str, frame: int) -> int:
    return (frame // 3 + len(id) + ord(id[-1])) % 4


def picture(label: int, seed: int) -> bytes:
    """A tint that encodes the label, plus noise."""
    pixels = np.random.default_rng(seed).integers(0, 120, (40, 40, 3), dtype=np.uint8)
    if label < 3:
        pixels[..., label] += 32
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=90)
    return buffer.getvalue()


def rows_of(id: str, length: int, seed: int = 0) -> list[dict]:
    video, _, subject = id.partition("_")
    first = LATE if subject else 1
    rows = []
    for frame in range(first, first + length):
        image = picture(label_of(id, frame), seed + 1000 * len(id) + 37 * ord(id[-1]) + frame)
        rows.append({"video": video, "subject": subject, "frame": frame, "time_s": (frame - 1) / 25, "image": image})
    rows[4]["image"] = None
    return rows


def make_store(path: Path, sequences: dict[str, int] | None = None, seed: int = 0, *, synthetic: bool = True) -> Path:
    for id, length in (TRAIN | VALIDATION if sequences is None else sequences).items():
        write_shard(path, id, rows_of(id, length, seed))
    finish_store(path, made_by="test", config={}, image_size=40, problems=[], synthetic=synthetic)
    return path


def make_labels(root: Path) -> Path:
    """Annotations in the release's form; each file has one more line than its video has frames, and one -1."""
    for split, ids in (("Train_Set", TRAIN), ("Validation_Set", VALIDATION)):
        folder = root / "EXPR_Recognition_Challenge" / split
        folder.mkdir(parents=True, exist_ok=True)
        for id, length in ids.items():
            last = length + (LATE if "_" in id else 1)
            labels = [label_of(id, frame) for frame in range(1, last + 1)]
            labels[1] = -1
            (folder / f"{id}.txt").write_text("\n".join([",".join(EXPRESSIONS), *map(str, labels)]) + "\n")
    return root


def make_encoder(path: Path, seed: int = 0, **changes: object) -> Path:
    torch.manual_seed(seed)
    kwargs = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "global_pool": "token"}
    config = replace(EncoderConfig("vit_tiny_patch16_224", SIZE, kwargs), **changes)
    provenance = {"stage": "pretrain", "synthetic": True, "unlabelled_videos": ["u1"], "labelled_videos": {}}
    save_encoder(path, Encoder(config, provenance=provenance), made_by="test", recipe={}, parents={})
    return path
