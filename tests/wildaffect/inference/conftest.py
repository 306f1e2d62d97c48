"""A tiny untrained encoder with heads, a store of random faces, and clips drawn for the tests."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpoints.encoder import load_encoder, save_encoder
from checkpoints.framing import OURS, Framing
from checkpoints.network import Encoder, EncoderConfig
from features.embed import Embedder
from features.sound import Ear
from preprocessing.align import encode_jpeg
from preprocessing.faces import FacesStore
from preprocessing.write_faces import finish_store, write_shard
from temporal.heads import Head, HeadInput, save_head
from temporal.network import HeadNetwork
from temporal.recipes import Architecture
from temporal.smoothing import Smoothing
from tests.wildaffect.inference.browser import CHROMIUM, Browser
from wildaffect.tasks import TASKS

SIZE = 32
ARCHITECTURE = Architecture(
    window=20, stride=10, tcn_channels=(8,), layers=1, width=16, attention_heads=2, feedforward=16
)

SMOOTHED = Smoothing("box", 5)


def make_encoder(directory: Path, *, synthetic: bool = True, seed: int = 0, size: int = SIZE) -> Encoder:
    torch.manual_seed(seed)
    kwargs = {"patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 2}
    encoder = Encoder(EncoderConfig("vit_tiny_patch16_224", size, kwargs), provenance={"stage": "pretrain"})
    encoder.provenance |= {"synthetic": synthetic, "labelled_videos": {"expr": ["a", "b"]}}
    encoder.provenance |= {"chosen_on": {"expr": ["e"]}}
    save_encoder(directory, encoder, made_by="test", recipe={}, parents={})
    return load_encoder(directory)


def make_head(
    run: Path,
    task: str,
    encoders: list[tuple[Path, Encoder]],
    *,
    view: str = "full",
    seed: int = 0,
    framing: Framing = OURS,
    architecture: Architecture = ARCHITECTURE,
    smoothing: Smoothing = SMOOTHED,
    ears: Sequence[Ear] = (),
) -> Path:
    torch.manual_seed(seed)
    inputs = tuple(
        HeadInput(
            Embedder(encoder, view, framing=framing).feature_id,
            encoder.dim,
            os.path.relpath(place, run / "head"),
            view,
            framing=framing.as_dict(),
        )
        for place, encoder in encoders
    )
    for ear in ears:
        place = os.path.relpath(ear.place, run / "head") if ear.place else ""
        inputs += (HeadInput(ear.feature_id, ear.dim, place, sound=ear.config["sound"]),)
    chosen = tuple(TASKS.values()) if task == "joint" else (TASKS[task],)
    network = HeadNetwork(architecture, [item.dim for item in inputs], sum(item.out_dim for item in chosen))
    with torch.no_grad():
        network.readout.weight.mul_(5)
    head = Head(
        network.eval(), chosen, architecture, inputs, "demo", dict.fromkeys((item.name for item in chosen), smoothing)
    )
    head.thresholds = np.linspace(0.3, 0.6, 12) if task in ("au", "joint") else None
    head.trained_on = ["a", "c"]
    scores: dict[str, Any] = {item.name: {"score": 0.4, "chance": 0.1, "videos": 2} for item in chosen}
    if len(chosen) > 1:  # as `temporal.selection.score_head` has it
        scores["score"] = 0.4 * len(chosen)
    head.record = {"validation": scores, "scored_on": ["d", "f"], "synthetic": True}
    save_head(head, run / "head", made_by="test", config={}, parents={})
    return run


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> tuple[Path, Encoder]:
    place = tmp_path_factory.mktemp("runs") / "mae" / "encoder"
    return place, make_encoder(place)


@pytest.fixture(scope="session")
def heads(encoder) -> list[Path]:
    folder = encoder[0].parent.parent
    return [make_head(folder / task, task, [encoder], seed=number) for number, task in enumerate(("va", "expr", "au"))]


def face_rows(video: str, subject: str, frames: range, missing: set[int] = frozenset(), seed: int = 0) -> list[dict]:
    """Store rows of random pictures; one of five is interpolated."""
    rng = np.random.default_rng(seed)
    rows = []
    for frame in frames:
        seen = frame not in missing
        box = [10.0 + frame, 20, 90 + frame, 110] if seen else None
        rows.append(
            {
                "video": video,
                "subject": subject,
                "frame": frame,
                "time_s": (frame - 1) / 25,
                "image": encode_jpeg(rng.integers(0, 255, (48, 48, 3), np.uint8)) if seen else None,
                "box": box,
                "landmarks": [30.0] * 10 if seen else None,
                "score": (0.0 if frame % 5 == 0 else 0.98) if seen else None,
                "interpolated": seen and frame % 5 == 0,
            }
        )
    return rows


def write_store(path: Path, rows: list[dict]) -> Path:
    write_shard(path, "clip", rows)
    finish_store(path, made_by="test", config={}, image_size=48, problems=[], framing=OURS)
    return path


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Video `clip`: 60 frames of the main person, who is away from 20 to 34; frames 11 to 45 of another."""
    rows = face_rows("clip", "", range(1, 61), set(range(20, 35))) + face_rows("clip", "2", range(11, 46), seed=1)
    return FacesStore(write_store(tmp_path_factory.mktemp("store") / "faces", rows))


@pytest.fixture
def browser(tmp_path):
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    page = Browser(tmp_path / "profile")
    yield page
    page.close()
