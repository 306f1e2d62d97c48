"""What a person looks at after stage 1: reconstructions and the run's page."""

from typing import Any

import numpy as np
import torch

from pretrain.faces_mixture import FacesMixture
from pretrain.mae import MaskedAutoencoder
from report.figures import loss_curves, mae_reconstructions
from report.page import SYNTHETIC_NOTE, Figure, Section, Table, write_page
from training.batches import sample_rng
from training.images import decode, resize
from training.rundir import RunDirectory


def reconstructions(
    model: MaskedAutoencoder, faces: FacesMixture, count: int = 8
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Original, masked and predicted pictures of evenly spaced faces, uint8 `[H, W, 3]`, each masked its own way."""
    size = model.encoder.config.image_size
    indices = np.linspace(0, len(faces) - 1, count).astype(int).tolist()
    images = torch.stack([resize(decode(faces.jpeg(index)), size) for index in indices])
    noise = torch.stack(
        [torch.from_numpy(sample_rng(0, 0, index).random(model.num_patches, dtype="float32")) for index in indices]
    )
    device = model.mask_token.device
    masked, predicted = model.eval().reconstruct(images.to(device), noise.to(device))
    pictures = [part.cpu().permute(0, 2, 3, 1).numpy() for part in (images, masked, predicted)]
    return list(zip(*pictures, strict=True))


def write_report(run: RunDirectory, model: MaskedAutoencoder, faces: FacesMixture, summary: dict[str, Any]) -> None:
    """Write `RUN/report.html`: settings, loss curve, reconstructions of training faces."""
    settings = {"architecture": model.encoder.config.architecture, **model.encoder.config.kwargs, **summary}
    write_page(
        run.path / "report.html",
        "Stage 1: masked autoencoder",
        [
            Section(
                "Reconstructions",
                [
                    Figure(
                        mae_reconstructions(reconstructions(model, faces)),
                        "Faces of the training stores: what the encoder saw, what was imagined (visible patches pasted "
                        "in), the original",
                    )
                ],
            ),
            Section("Loss", [Figure(loss_curves(run.metrics()), "Mean squared error over masked patches, by step")]),
            Section("Settings", [Table(["setting", "value"], [[key, str(value)] for key, value in settings.items()])]),
        ],
        note=SYNTHETIC_NOTE if faces.synthetic else "",
    )
