"""From a row of a faces store to an encoder's input: decode the picture, cut a view out of it, resize it.

Training, extraction, the probe and inference all cut their pictures with :func:`face_views`.

A view consists of fixed parts of an aligned face, with nothing learned (Nguyen et al. 2024, arXiv 2403.13039): the *eye
strip* and the *mouth strip* always lie at the same place. The `_landmarks` variants place, scale and turn the same
parts by the face's own landmarks, for poses and proportions that alignment leaves out of place.
"""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import torch
from torch.nn import functional

from checkpoints.errors import UserError
from checkpoints.network import Encoder
from preprocessing.faces import FacesStore, ViewName
from wildaffect.training.images import decode, resize

BY_LANDMARKS = "_landmarks"

# x from, x to, y from, y to, as shares of the picture's width and height. Eyes and mouth are the paper's; it mentions
# a nose patch but not where it lies.
REGIONS: dict[str, tuple[float, float, float, float]] = {
    "eyes": (0.20, 0.80, 0.35, 0.55),
    "mouth": (0.20, 0.80, 0.70, 0.90),
    "nose": (0.35, 0.65, 0.45, 0.70),
}
VIEWS: dict[str, tuple[str, ...]] = {
    view: () if view == "full" else tuple(view.removesuffix(BY_LANDMARKS).split("_")) for view in get_args(ViewName)
}
# Left eye, right eye, nose tip, left and right mouth corner of an aligned face, as shares of the picture's side.
ALIGNED = np.array([[0.3771, 0.4728], [0.6288, 0.4714], [0.5038, 0.6160], [0.4004, 0.7633], [0.6088, 0.7622]])


def by_landmarks(view: str) -> bool:
    """Whether a view is placed by landmarks."""
    return view.endswith(BY_LANDMARKS)


def face_views(
    jpeg: bytes | None, views: Sequence[str] = ("full",), landmarks: np.ndarray | None = None
) -> list[torch.Tensor]:
    """Views of one face, each uint8 `[3, h, w]`.

    Args:
        jpeg: The picture.
        views: Names of the views.
        landmarks: See :func:`cut`.

    Raises:
        RuntimeError: The picture is missing or cannot be decoded.
    """
    picture = decode(jpeg or b"")
    return [cut(picture, view, landmarks) for view in views]


def row_views(store: FacesStore, row: int, views: Sequence[str] = ("full",)) -> list[torch.Tensor]:
    """Views of the face in a row of a store; see :func:`face_views`."""
    landmarks = store.picture_landmarks(row) if any(map(by_landmarks, views)) else None
    return face_views(store.jpeg(row), views, landmarks)


class StillFrames(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """V views of the rows of a store at the size an encoder reads (S pixels), without augmentation."""

    def __init__(self, store: FacesStore, views: Sequence[str], size: int) -> None:
        self.store, self.views, self.size = store, tuple(views), size

    def __getitems__(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """Pictures of some rows: `images` uint8 `[B, V, 3, S, S]`; `readable` `[B]`, false where decoding failed."""
        pictures = [self[row] for row in rows]
        blank = torch.zeros(len(self.views), 3, self.size, self.size, dtype=torch.uint8)
        return {
            "images": torch.stack([blank if picture is None else picture for picture in pictures]),
            "readable": torch.tensor([picture is not None for picture in pictures]),
        }

    def __getitem__(self, row: int) -> torch.Tensor | None:  # type: ignore[override]
        """Every view of one row, uint8 `[V, 3, S, S]`; None if its picture cannot be decoded."""
        try:
            pictures = row_views(self.store, row, self.views)
        except RuntimeError as error:
            print(f"skipped a bad picture: {row_name(self.store, row)}: {error}", flush=True)
            return None
        return torch.stack([resize(picture, self.size) for picture in pictures])


def row_name(store: FacesStore, row: int) -> str:
    """Store, video, subject and frame of a row, for messages."""
    subject = f" {store.subject[row]}" if store.subject[row] else ""
    return f"{store.path}: video {store.video[row]}{subject}, frame {store.frame[row]}"


def check_views(store: FacesStore, views: Sequence[str]) -> None:
    """Refuse landmark views of a store that has no landmarks.

    Raises:
        UserError: None of the first 100 faces has landmarks.
    """
    asked = [view for view in views if by_landmarks(view)]
    first = np.flatnonzero(store.valid)[:100].tolist()
    if asked and all(store.landmarks(row) is None for row in first):
        raise UserError(
            f"--view {asked[0]} needs landmarks and {store.path} has none (its pictures came as ready faces): use "
            f"--view {asked[0].removesuffix(BY_LANDMARKS)}, or run preprocessing without --crops"
        )


def describe_input(encoder: Encoder, name: str, store_size: int) -> str:
    """What an encoder expects and what a store gives it, in words.

    Raises:
        UserError: The encoder's normalisation is not for images in [0, 1].
    """
    config = encoder.config
    if not all(0 <= value <= 1 for value in config.mean) or not all(0 < value <= 1 for value in config.std):
        raise UserError(
            f"{name} normalises with mean {config.mean} and std {config.std}, but images are scaled to [0, 1] first: "
            "divide both by 255 in its config.json"
        )
    mean, std = (", ".join(f"{value:.3f}" for value in values) for values in (config.mean, config.std))
    text = (
        f"encoder {name}: {config.architecture}, input {config.image_size} px, mean ({mean}), std ({std}), pooling "
        f"{config.pooling}, {encoder.dim}-d features"
    )
    if store_size > config.image_size:
        text += f"\nthe store's faces are reduced from {store_size} px to the encoder's {config.image_size} px"
    elif store_size < config.image_size:
        text += (
            f"\nnote: the store's faces are enlarged from {store_size} px to the encoder's {config.image_size} px, "
            f"which adds no detail; preprocessing with --size {config.image_size} keeps the detail of the videos"
        )
    return text


def cut(picture: torch.Tensor, view: str, landmarks: np.ndarray | None = None) -> torch.Tensor:
    """Cut a view out of a face.

    Args:
        picture: uint8 `[3, H, W]`.
        view: One of `VIEWS`.
        landmarks: Five points (x, y) in pixels of the picture `[5, 2]`, for the `_landmarks` views. If they are
            unknown, the face is assumed to be aligned.

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
