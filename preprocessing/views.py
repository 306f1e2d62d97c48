"""Training-free key-region views of a face (Nguyen et al. 2024, arXiv 2403.13039).

A view cuts fixed parts out of an aligned face, with nothing learned: the *eye strip* and the *mouth strip* lie where
they always lie. The `_landmarks` variants place, scale and turn the same parts by a face's own landmarks: for poses and
proportions that alignment leaves out of place, and for faces that are not aligned.
"""

from typing import Literal, get_args

import numpy as np
import torch
from torch.nn import functional

ViewName = Literal[
    "full",
    "eyes_mouth",
    "eyes",
    "mouth",
    "nose",
    "eyes_mouth_landmarks",
    "eyes_landmarks",
    "mouth_landmarks",
    "nose_landmarks",
]
BY_LANDMARKS = "_landmarks"

# x from, x to, y from, y to, as shares of the picture's width and height. Eyes and mouth are the paper's; it names a
# nose patch without its place.
REGIONS: dict[str, tuple[float, float, float, float]] = {
    "eyes": (0.20, 0.80, 0.35, 0.55),
    "mouth": (0.20, 0.80, 0.70, 0.90),
    "nose": (0.35, 0.65, 0.45, 0.70),
}
VIEWS: dict[str, tuple[str, ...]] = {
    view: () if view == "full" else tuple(view.removesuffix(BY_LANDMARKS).split("_")) for view in get_args(ViewName)
}
# Left eye, right eye, nose tip, left and right mouth corner of a face as preprocessing aligns it, in shares.
ALIGNED = np.array([[0.3771, 0.4728], [0.6288, 0.4714], [0.5038, 0.6160], [0.4004, 0.7633], [0.6088, 0.7622]])


def by_landmarks(view: str) -> bool:
    """Whether a view is placed by landmarks."""
    return view.endswith(BY_LANDMARKS)


def cut(picture: torch.Tensor, view: str, landmarks: np.ndarray | None = None) -> torch.Tensor:
    """Cut a view out of a face.

    Args:
        picture: uint8 `[3, H, W]`.
        view: One of `VIEWS`.
        landmarks: Five points (x, y) in pixels of the picture `[5, 2]`, for the `_landmarks` views; where they are
            unknown the face is taken to be aligned.

    Returns:
        uint8 `[3, h, w]`: the view's regions, one above the other; the picture itself for `full`.
    """
    regions = VIEWS[view]
    if not regions:
        return picture
    if by_landmarks(view) and landmarks is not None:
        return torch.cat([_turned(picture, region, landmarks) for region in regions], dim=-2)
    return torch.cat([_fixed(picture, region) for region in regions], dim=-2)


def _fixed(picture: torch.Tensor, region: str) -> torch.Tensor:
    height, width = picture.shape[-2:]
    x1, x2, y1, y2 = REGIONS[region]
    return picture[..., round(y1 * height) : round(y2 * height), round(x1 * width) : round(x2 * width)]


def _turned(picture: torch.Tensor, region: str, landmarks: np.ndarray) -> torch.Tensor:
    """A region that moves with its landmarks, and turns and grows with the line between the eyes."""
    height, width = picture.shape[-2:]
    x1, x2, y1, y2 = REGIONS[region]
    columns, rows = round(x2 * width) - round(x1 * width), round(y2 * height) - round(y1 * height)
    across = x1 + (np.arange(columns) + 0.5) / columns * (x2 - x1)
    down = y1 + (np.arange(rows) + 0.5) / rows * (y2 - y1)
    # Points of the plane as complex numbers: turning and scaling is one product. Pixel centres lie at half shares.
    face = ((landmarks + 0.5) / (width, height)) @ (1, 1j)
    model = ALIGNED @ (1, 1j)
    turn = (face[1] - face[0]) / (model[1] - model[0])
    points = {"eyes": [0, 1], "nose": [2], "mouth": [3, 4]}[region]
    place = face[points].mean() + turn * (across + 1j * down[:, None] - model[points].mean())
    grid = torch.from_numpy(np.stack([place.real, place.imag], axis=-1) * 2 - 1).float()
    sampled = functional.grid_sample(
        picture[None].float(), grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled[0].round().clamp(0, 255).to(torch.uint8)
