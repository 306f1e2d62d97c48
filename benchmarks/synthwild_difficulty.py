"""How difficult SynthWild is for single frames: a small convnet is trained on frames and scored on other people.

The macro F1 on the validation identities should be between .60 and .80: the drawing must carry the signal, but a single
frame must not show everything, so that time has something to add. The gain from averaging over neighbouring frames is
measured too. Writes benchmarks/results/synthwild_difficulty.json.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from checkpoints.artifact import Header, read_header, write_json
from checkpoints.errors import UserError, guarded
from wildaffect.report.bar import progress_bar
from wildaffect.tasks import EXPRESSIONS, TASKS
from wildaffect.tasks.labels import read_annotations
from wildaffect.tasks.metrics import confusion, macro_f1


@dataclass(frozen=True)
class Config:
    """Train a small convnet on single frames of a SynthWild corpus and score it on unseen people."""

    corpus: Path = Path("data/synthwild-small")
    """A corpus written by synthwild/run.py."""
    out: Path = Path("benchmarks/results/synthwild_difficulty.json")
    """Where to record the result."""
    epochs: int = 24
    """Passes over the training frames."""
    seed: int = 0
    """Seed of weights and batches."""


def load_split(release: Path, split: str) -> tuple[Tensor, Tensor, list[slice]]:
    """Crops ``[N, 3, 64, 64]`` in [0, 1], expressions ``[N]`` and the rows of each video, frames with both only."""
    images: list[np.ndarray] = []
    labels: list[int] = []
    videos: list[slice] = []
    for name, track in sorted(read_annotations(release, TASKS["expr"], split).items()):
        start = len(images)
        for t in np.flatnonzero(track.mask[:, 0]):
            path = release / "cropped_aligned" / name / f"{t + 1:05d}.jpg"
            if path.exists():
                crop = cv2.imread(str(path), cv2.IMREAD_COLOR)
                assert crop is not None, path
                images.append(cv2.resize(crop, (64, 64), interpolation=cv2.INTER_AREA))
                labels.append(int(track.labels[t, 0]))
        videos.append(slice(start, len(images)))
    if not images:
        raise UserError(f"{release} has no labelled crops in {split}")
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return pixels, torch.tensor(labels), videos


def convnet() -> nn.Module:
    """Four convolutions with batch norm and pooling, about 240,000 weights."""
    layers: list[nn.Module] = []
    for into, outof in ((3, 24), (24, 48), (48, 96), (96, 128)):
        layers += [nn.Conv2d(into, outof, 3, padding=1), nn.BatchNorm2d(outof), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.4), nn.Linear(128 * 16, len(EXPRESSIONS)))


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to four pixels, mirror, change gain: one choice per image."""
    padded = F.pad(images, (4, 4, 4, 4), mode="replicate")
    out = torch.empty_like(images)
    for i in range(len(images)):
        y, x = torch.randint(0, 9, (2,), generator=generator).tolist()
        out[i] = padded[i, :, y : y + 64, x : x + 64]
    mirrored = torch.rand(len(out), generator=generator) < 0.5
    out[mirrored] = out[mirrored].flip(-1)
    return out * (0.8 + 0.4 * torch.rand(len(out), 1, 1, 1, generator=generator))


def smoothed(probabilities: np.ndarray, videos: list[slice], reach: int) -> np.ndarray:
    """Probabilities averaged over ``reach`` frames on each side within each video."""
    out = probabilities.copy()
    for rows in videos:
        part = probabilities[rows]
        for t in range(len(part)):
            out[rows.start + t] = part[max(t - reach, 0) : t + reach + 1].mean(0)
    return out


def train(model: nn.Module, images: Tensor, labels: Tensor, config: Config) -> None:
    """AdamW with one cycle of the learning rate."""
    generator = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.02)
    steps = config.epochs * (len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    model.train()
    for _ in progress_bar(range(config.epochs), desc="convnet", unit="epoch"):
        order = torch.randperm(len(images), generator=generator)
        for k in range(len(images) // 64):
            rows = order[64 * k : 64 * k + 64]
            loss = F.cross_entropy(model(augment(images[rows], generator) - 0.45), labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def measure(config: Config) -> dict[str, Any]:
    """Train and score; returns the content of the result file."""
    header = read_header(config.corpus, "synthwild.json", kind="synthwild corpus", schema=1, form=Header)
    torch.manual_seed(config.seed)
    torch.set_num_threads(1)
    images, labels, _ = load_split(config.corpus / "release", "Train_Set")
    unseen, truth, videos = load_split(config.corpus / "release", "Validation_Set")
    model = convnet()
    train(model, images, labels, config)
    model.eval()
    with torch.inference_mode():
        probabilities = torch.cat([model(part - 0.45).softmax(1) for part in unseen.split(256)]).numpy()
        seen = torch.cat([model(part - 0.45).argmax(1) for part in images.split(256)]).numpy()
    answer, predicted = truth.numpy(), probabilities.argmax(1)
    return {
        "what": "small convnet on single 64 px frames of SynthWild (synthetic); macro-F1 on unseen people",
        "corpus": header["config"],
        "train_frames": len(images),
        "validation_frames": len(unseen),
        "macro_f1_train": round(macro_f1(confusion(seen, labels.numpy(), len(EXPRESSIONS))), 3),
        "macro_f1": round(macro_f1(confusion(predicted, answer, len(EXPRESSIONS))), 3),
        "recall": {n: round(float((predicted[answer == k] == k).mean()), 2) for k, n in enumerate(EXPRESSIONS)},
        "macro_f1_averaged_over_frames": {
            str(reach): round(
                macro_f1(confusion(smoothed(probabilities, videos, reach).argmax(1), answer, len(EXPRESSIONS))), 3
            )
            for reach in (1, 2, 4, 8)
        },
    }


def main() -> None:
    """Read the command line and run."""
    config = tyro.cli(Config)
    result = measure(config)
    write_json(config.out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    guarded(main)
