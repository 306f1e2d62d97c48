"""Does an encoder that saw no emotion label see action units? The control of the starter's head for them.

    python benchmarks/renders_only.py --data FOLDER --starter runs/starter --out runs/renders_only

The starter's encoder also learnt from votes on expressions. Here the same network learns from the action units of the
same rendered faces alone; then the statistics of its batch normalisation are those of FER+'s faces, without labels. The
head is trained as in `starter.py`, and `benchmarks/action_units.py` checks it.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import tyro
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

import features.run
import features.settings
import temporal.recipes
import temporal.run
from benchmarks.action_units import ActionUnits
from benchmarks.action_units import main as check
from checkpoints.encoder import save_encoder
from checkpoints.errors import guarded
from checkpoints.network import Encoder
from finetune.augment import picture_augmentation
from finetune.labels import read_units
from preprocessing.faces import FacesStore
from preprocessing.views import row_views
from starter_card import SHOWN
from starter_steps import ENCODER
from wildaffect.tasks import AU, AUS
from wildaffect.training.images import RandomCrop, resize
from wildaffect.training.schedule import warmup_cosine

BATCH, LR, WARMUP, DECAY = 128, 1e-3, 50, 0.996
REAL = 5_120
"""Faces of FER+ whose statistics batch normalisation takes."""


@dataclass(frozen=True)
class Config:
    """Train an encoder and a head on rendered action units alone, and check them on real faces."""

    data: Path
    """Folder of real faces, as for starter.py."""
    starter: Path = Path("runs/starter")
    """Where starter.py worked: `faces/stills` and `faces/ferplus` are read."""
    out: Path = Path("runs/renders_only")
    """Folder for all results."""
    result: Path | None = None
    """Where to record the checks as JSON."""
    epochs: float = 7.0
    """Passes over the renders."""


def main(config: Config) -> dict[str, Any]:
    """Train whatever is missing, check, and return what the checks found."""
    stills, encoder = config.starter / "faces" / "stills", config.out / "encoder"
    labels = stills / "labels.parquet"
    if not (encoder / "config.json").exists():
        made = train(FacesStore(stills), labels, FacesStore(config.starter / "faces" / "ferplus"), config.epochs)
        save_encoder(encoder, made, made_by="benchmarks/renders_only.py", recipe={}, parents={})
    cache = config.out / "features"
    features.run.main(features.settings.Extract(encoder=str(encoder), faces=stills, out=cache, flip=True))
    withheld = tuple(name for name in AUS if name not in SHOWN)
    recipe = replace(temporal.recipes.recipe("stills", "au"), withheld=withheld)
    temporal.run.main(replace(recipe, features=(cache,), labels=labels, out=config.out / "au"))
    return check(ActionUnits(config.data, heads=config.out / "au", out=config.result))


def train(store: FacesStore, labels: Path, real: FacesStore, epochs: float) -> Encoder:
    """Train the starter's network on the intensities of a store's action units."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    encoder = Encoder(ENCODER, provenance={"stage": "rendered action units alone", "synthetic": True})
    model = nn.Sequential(encoder, nn.Linear(encoder.dim, AU.out_dim))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    crop = RandomCrop(encoder.config.image_size, (0.8, 1.0))
    augment = picture_augmentation(framing_jitter=0.06, blur=0.3, randaugment=0, colour_jitter=0.3, erasing=0.15)
    assert augment is not None
    frames = read_units(store, labels, [])
    steps = math.ceil(epochs * len(frames) / BATCH)
    order = np.concatenate([rng.permutation(len(frames)) for _ in range(math.ceil(epochs) + 1)])
    for step in range(steps):
        drawn = order[step * BATCH : (step + 1) * BATCH]
        pictures = [row_views(store, int(frames.rows[index]))[0] for index in drawn]
        images = torch.stack([augment(crop(picture, rng), rng) for picture in pictures])
        targets = torch.from_numpy(frames.targets[drawn])
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(step, total=steps, warmup=WARMUP, peak=LR)
        loss = AU.loss(model(images), targets.nan_to_num(), ~targets.isnan())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        average.update_parameters(model)
        if step % 50 == 0:
            print(f"step {step}/{steps}  loss {loss.item():.4f}", flush=True)
    rows = rng.permutation(np.flatnonzero(real.valid))[:REAL]
    size = encoder.config.image_size
    faces = [resize(row_views(real, int(row))[0], size) for row in rows]
    update_bn(torch.stack(faces).split(256), average.module)
    trained: Any = average.module
    return cast(Encoder, trained[0]).eval()


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))
