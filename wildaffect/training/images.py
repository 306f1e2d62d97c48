"""JPEG bytes to batches of uint8 crops: decoded, cropped and flipped on tensors; normalised later, on the device."""

import atexit
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2 import functional

from checkpoints.errors import UserError
from wildaffect.training.batches import sample_rng

LOG_ASPECT = (float(np.log(3 / 4)), float(np.log(4 / 3)))
TRIES = 10
"""Draws of a crop's sides until they fit, as in torchvision; then the largest that the ratios allow are taken."""
IN_A_ROW = 100
"""This many broken pictures in a row are no accident."""


def decode(jpeg: bytes) -> torch.Tensor:
    """Decode a JPEG to a uint8 tensor `[3, H, W]`; grey pictures get three equal channels.

    Raises:
        RuntimeError: It is not a JPEG, or it is broken.
    """
    if not jpeg:
        raise RuntimeError("it is empty")
    data = torch.frombuffer(bytearray(jpeg), dtype=torch.uint8)
    try:
        return decode_jpeg(data, mode=ImageReadMode.RGB)
    except RuntimeError as error:  # the message begins with a line of torchvision's source
        raise RuntimeError(str(error).rpartition(", ")[2]) from None


def readable(jpeg: bytes | None) -> bool:
    """Whether a JPEG can be decoded."""
    try:
        return decode(jpeg or b"") is not None
    except RuntimeError:
        return False


def resize(image: torch.Tensor, size: int) -> torch.Tensor:
    """Resize a uint8 picture `[3, H, W]` to `[3, size, size]`, antialiased."""
    if image.shape[-2:] == (size, size):
        return image
    return functional.resize(image, [size, size], antialias=True)


@dataclass(frozen=True)
class RandomCrop:
    """Cuts a random part out of a picture, resizes it and mirrors it half of the time.

    Attributes:
        size: Side of the result in pixels.
        scale: Smallest and largest share of the picture's area that is kept; the aspect ratio varies by 3/4 to 4/3.
        style: `mae`: torchvision's RandomResizedCrop, as He et al. (2021) crop: area and aspect ratio are drawn again
            until the part fits into the picture, and it is resized bicubically. `fast`: they are drawn once, sides that
            are too long are clamped, so that parts are larger, and it is resized bilinearly.
    """

    size: int
    scale: tuple[float, float]
    style: Literal["fast", "mae"] = "fast"

    def __call__(self, image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Crop uint8 `[3, H, W]` to `[3, size, size]` with the sample's own randomness."""
        top, left, height, width = self.box(image.shape[-2], image.shape[-1], rng)
        # What torchvision's `resized_crop` does, without the checks that cost a tenth of a small picture's time.
        part = image[None, :, top : top + height, left : left + width]
        mode = "bicubic" if self.style == "mae" else "bilinear"
        crop = torch.nn.functional.interpolate(part, size=(self.size, self.size), mode=mode, antialias=True)[0]
        return crop.flip(-1) if rng.random() < 0.5 else crop

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Top, left, height and width of a random part of a picture."""
        crop_h, crop_w = (self._fitting if self.style == "mae" else self._clamped)(height, width, rng)
        return int(rng.integers(height - crop_h + 1)), int(rng.integers(width - crop_w + 1)), crop_h, crop_w

    def _fitting(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
        for _ in range(TRIES):
            sides = _sides(height * width * rng.uniform(*self.scale), np.exp(rng.uniform(*LOG_ASPECT)))
            if 0 < sides[0] <= height and 0 < sides[1] <= width:
                return sides
        return min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))

    def _clamped(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
        area = height * width * rng.uniform(*self.scale)
        ratio = np.exp(rng.uniform(*LOG_ASPECT)) if self.scale[0] < 1 else width / height
        crop_h, crop_w = _sides(area, ratio)
        return min(height, max(1, crop_h)), min(width, max(1, crop_w))


def _sides(area: float, ratio: float) -> tuple[int, int]:
    """Height and width of a rectangle, by its area and width over height."""
    return round(float(np.sqrt(area / ratio))), round(float(np.sqrt(area * ratio)))


class CropDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Whole micro-batches of crops, addressed by their (epoch, sample index) pairs.

    Args:
        count: Number of samples.
        picture: Sample index to its decoded picture, or the part of it that is cropped; raises RuntimeError if the
            picture cannot be decoded.
        name: Sample index to a name for messages.
        crop: Crops a picture with the sample's rng.
        seed: Seed of the samples' randomness.
        extras: (rng, sample index) to the sample's other arrays (mask noise, label), which are stacked.
        augment: Applied to each crop with the sample's rng.
        pick: (epoch, place in it) to the sample index, if an epoch is not every sample once.
    """

    def __init__(
        self,
        *,
        count: int,
        picture: Callable[[int], torch.Tensor],
        name: Callable[[int], str],
        crop: RandomCrop,
        seed: int,
        extras: Callable[[np.random.Generator, int], dict[str, Any]] | None = None,
        augment: Callable[[torch.Tensor, np.random.Generator], torch.Tensor] | None = None,
        pick: Callable[[int, int], int] = lambda _epoch, place: place,
    ) -> None:
        self.count, self.picture, self.name, self.crop = count, picture, name, crop
        self.seed, self.extras, self.augment, self.pick = seed, extras, augment, pick
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, pair: tuple[int, int]) -> dict[str, Any]:
        """Crop one sample; the next one takes the place of a picture that cannot be decoded."""
        epoch, place = pair
        index = self.pick(epoch, place)
        rng = sample_rng(self.seed, epoch, place)
        tries = ((index + attempt) % self.count for attempt in range(min(self.count, IN_A_ROW)))
        found = first_readable(tries, self.picture, self.name, self.skipped)
        if found is None:
            many = min(self.count, IN_A_ROW)
            raise UserError(f"{many} pictures in a row cannot be decoded, last {self.skipped[-1]}: check the store")
        taken, picture = found
        crop = self.crop(picture, rng)
        if self.augment is not None:
            crop = self.augment(crop, rng)
        return {"name": self.name(taken), "images": crop, **(self.extras(rng, taken) if self.extras else {})}

    def __getitems__(self, pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Crop a micro-batch; see :func:`stacked`."""
        return stacked([self[pair] for pair in pairs], self.skipped)


def first_readable(
    tries: Iterable[int], picture: Callable[[int], torch.Tensor], name: Callable[[int], str], skipped: list[str]
) -> tuple[int, torch.Tensor] | None:
    """The first number whose picture can be decoded, and the picture; the names before it are added to `skipped`."""
    for number in tries:
        try:
            return number, picture(number)
        except RuntimeError as error:
            skipped.append(f"{name(number)}: {error}")
    return None


def stacked(samples: Sequence[dict[str, Any]], skipped: list[str]) -> dict[str, Any]:
    """A micro-batch: each value stacked to `[B, ...]`, the samples' `names`, and what was `skipped`, which is emptied.

    The training loop reports both, whichever process read the pictures.
    """
    keys = [key for key in samples[0] if key != "name"]
    batch: dict[str, Any] = {key: torch.stack([torch.as_tensor(sample[key]) for sample in samples]) for key in keys}
    batch |= {"names": [sample["name"] for sample in samples], "skipped": skipped.copy()}
    skipped.clear()
    return batch


def work_ahead(
    dataset: torch.utils.data.Dataset[Any],
    workers: int,
    batches: Iterable[Sequence[Any]] | None = None,
    *,
    start: Literal["fork", "spawn"] = "fork",
) -> torch.utils.data.DataLoader[Any]:
    """Batches that a dataset gives whole, prepared by `workers` processes ahead of time.

    Args:
        dataset: Its `__getitems__` makes a batch, or it iterates over batches.
        workers: Processes; 0: this one.
        batches: What each batch is asked for with; None if the dataset iterates.
        start: Forked workers share the store that is already open. Spawned workers get a copy of the dataset: needed
            if its threads hold locks, for which a forked process would wait forever.
    """
    chosen: dict[str, Any] = {"batch_size": None} if batches is None else {"batch_sampler": batches}
    return torch.utils.data.DataLoader(
        dataset,
        **chosen,
        num_workers=workers,
        collate_fn=as_is,
        worker_init_fn=outlive_sigterm,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if workers else None,
        multiprocessing_context=start if workers else None,
    )


def as_is(batch: Any) -> Any:
    """Collate function for datasets that give whole batches."""
    return batch


def outlive_sigterm(_worker: int) -> None:
    """Let a loader's worker ignore SIGTERM, which schedulers send to every process of a job.

    The training process then finishes its step and saves its state; the workers end with it.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """End workers that an error left behind: Python would send them SIGTERM and wait forever.

    Exit handlers run in reverse order, so this one runs before the one of `multiprocessing`.
    """
    left = [child for child in multiprocessing.active_children() if child.daemon]
    if left:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise an error
    for child in left:
        child.kill()
