"""The report of a stage-1 run: reconstructions, pictures of its progress, and the page that shows them."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from checkpoints.artifact import atomic_file
from preprocessing.views import face_views
from pretrain.mae import MaskedAutoencoder
from pretrain.mixture import Faces
from wildaffect.report.figures import loss_curves, mae_reconstructions, picture_grid
from wildaffect.report.page import SYNTHETIC_NOTE, Figure, Section, Table, write_page
from wildaffect.training.batches import sample_rng
from wildaffect.training.images import IN_A_ROW, readable, resize
from wildaffect.training.rundir import RunDirectory

GRIDS = "pictures"
GROWTH = 10
"""Most steps that the report shows side by side."""


def reconstructions(
    model: MaskedAutoencoder, faces: Faces, count: int = 8
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Original, masked and predicted pictures of evenly spaced faces, uint8 `[H, W, 3]`, each with its own mask.

    A picture that cannot be decoded is replaced by the next one.
    """
    size = model.encoder.config.image_size
    indices = [_readable_from(faces, index) for index in np.linspace(0, len(faces) - 1, count).astype(int).tolist()]
    images = torch.stack([resize(face_views(faces.jpeg(index))[0], size) for index in indices])
    noise = torch.stack(
        [torch.from_numpy(sample_rng(0, 0, index).random(model.num_patches, dtype="float32")) for index in indices]
    )
    device = model.mask_token.device
    masked, predicted = model.eval().reconstruct(images.to(device), noise.to(device))
    pictures = [part.cpu().permute(0, 2, 3, 1).numpy() for part in (images, masked, predicted)]
    return list(zip(*pictures, strict=True))


def _readable_from(faces: Faces, index: int) -> int:
    """The first readable picture from `index` on; training would have stopped if there were none."""
    candidates = ((index + number) % len(faces) for number in range(IN_A_ROW))
    return next(number for number in candidates if readable(faces.jpeg(number)))


def write_grid(run: Path, model: MaskedAutoencoder, faces: Faces, step: int) -> None:
    """Write `RUN/pictures/step_<step>.png`: always the same few faces, masked, predicted and original."""
    grid = np.vstack(
        [np.hstack([masked, predicted, original]) for original, masked, predicted in reconstructions(model, faces, 4)]
    )
    with atomic_file(run / GRIDS / f"step_{step:08d}.png") as temporary:
        Image.fromarray(grid).save(temporary, "png")


def growth(run: Path, size: int) -> Figure | None:
    """Show the predictions of a run's grids side by side, by step; None if there are no grids that can be read."""
    found = [(file, cv2.imread(str(file))) for file in sorted((run / GRIDS).glob("step_*.png"))]
    whole = [(file, grid) for file, grid in found if grid is not None and grid.shape == (4 * size, 3 * size, 3)]
    if not whole:
        return None
    whole = [whole[k] for k in np.unique(np.linspace(0, len(whole) - 1, GROWTH).astype(int))]
    grids = [np.ascontiguousarray(grid[..., ::-1]) for _, grid in whole]
    columns = ["masked", *(f"step {file.stem.removeprefix('step_').lstrip('0')}" for file, _ in whole), "original"]
    rows = []
    for top in range(0, len(grids[0]), size):
        parts = [grid[top : top + size] for grid in grids]
        shown = [parts[-1][:, :size], *(part[:, size : 2 * size] for part in parts), parts[-1][:, 2 * size :]]
        rows.append(("", shown))
    caption = "The same faces as training went on; visible patches pasted in, pixels un-normalised"
    return Figure(picture_grid(rows, columns, side=80), caption)


def write_report(run: RunDirectory, model: MaskedAutoencoder, faces: Faces, summary: dict[str, Any]) -> None:
    """Write `RUN/report.html`: reconstructions, curves, stores, settings."""
    stores = summary["stores"]
    scores = {key: value for key, value in summary.items() if key != "stores"}
    settings = {"architecture": model.encoder.config.architecture, **model.encoder.config.kwargs, **scores}
    grown = growth(run.path, model.encoder.config.image_size)
    records = run.metrics()
    curves = [
        Figure(loss_curves(records, ("loss", "grad_norm")), "Mean squared error over masked patches, gradient norm")
    ]
    if any("probe_linear" in record for record in records):
        what = (
            "Macro-F1 of classifiers on frozen features, scored on videos that they were not fitted on. The highest "
            "one chooses `best` and is too good"
        )
        curves.append(Figure(loss_curves(records, ("probe_linear", "probe_knn")), what))
    write_page(
        run.path / "report.html",
        "Stage 1: masked autoencoder",
        [
            Section(
                "Reconstructions",
                [
                    Figure(
                        mae_reconstructions(reconstructions(model, faces)),
                        "Faces of the training stores: what the encoder saw, what was predicted (visible patches "
                        "pasted in), the original",
                    ),
                    *([grown] if grown else []),
                ],
            ),
            Section("Curves", curves),
            Section("Stores", [Table(list(stores[0]), [list(part.values()) for part in stores])]),
            Section("Settings", [Table(["setting", "value"], list(settings.items()))]),
        ],
        note=SYNTHETIC_NOTE if faces.synthetic else "",
    )
