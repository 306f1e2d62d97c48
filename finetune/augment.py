"""Augmentation of single pictures, each with its own random numbers, and mixing within a batch."""

from collections.abc import Callable

import numpy as np
import torch
from torchvision.transforms import v2


def picture_augmentation(
    *, framing_jitter: float, blur: float, randaugment: int, colour_jitter: float, erasing: float
) -> Callable[[torch.Tensor, np.random.Generator], torch.Tensor] | None:
    """Augmentation of a cropped uint8 picture `[3, S, S]`, or None if all are off.

    Args:
        framing_jitter: Largest change of scale and largest shift, as a share of the side, with up to 100 times as many
            degrees of rotation; 0: none. Faces are not found in exactly the same place twice.
        blur: Probability that the picture is shrunk to between a quarter and all of its size and enlarged again.
        randaugment: Magnitude of RandAugment's two operations (Cubuk et al. 2020); 0: none.
        colour_jitter: Largest relative change of brightness, contrast and saturation; 0: none.
        erasing: Probability that a rectangle is filled with grey (Zhong et al. 2020).
    """
    transforms: list[Callable[[torch.Tensor], torch.Tensor]] = []
    if framing_jitter:
        transforms.append(
            v2.RandomAffine(
                100 * framing_jitter,
                translate=(framing_jitter, framing_jitter),
                scale=(1 - framing_jitter, 1 + framing_jitter),
                interpolation=v2.InterpolationMode.BILINEAR,
                fill=128,
            )
        )
    if blur:
        transforms.append(v2.RandomApply([_Coarse()], p=blur))
    if randaugment:
        transforms.append(v2.RandAugment(num_ops=2, magnitude=randaugment, fill=128))
    if colour_jitter:
        transforms.append(v2.ColorJitter(colour_jitter, colour_jitter, colour_jitter))
    if erasing:
        transforms.append(v2.RandomErasing(p=erasing, scale=(0.02, 0.25), value=128))
    if not transforms:
        return None

    def augment(picture: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        # The transforms draw from torch's global generator, so it is seeded for this sample and restored afterwards.
        # Pictures are on the CPU; torch.manual_seed seeds GPUs too, and takes half of an augmentation's time for it.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(rng.integers(2**62)))
            for transform in transforms:
                picture = transform(picture)
        return picture

    return augment


class _Coarse(torch.nn.Module):
    """Takes away fine detail, as a small face or strong compression does."""

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Shrink a picture `[3, S, S]` and enlarge it again."""
        size = picture.shape[-1]
        small = int(size * torch.empty(1).uniform_(0.25, 1.0).item())
        shrunk = v2.functional.resize(picture, [small, small], antialias=True)
        return v2.functional.resize(shrunk, [size, size], antialias=True)


def batch_mixing(
    *, mixup: float, cutmix: float
) -> Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Mixing of (images `[B, 3, S, S]`, targets `[B, C]`) within a batch, drawn from torch's global generator.

    Args:
        mixup: Alpha of mixup (Zhang et al. 2018); 0: none.
        cutmix: Alpha of cutmix (Yun et al. 2019); 0: none. With both, each batch takes one of the two.
    """
    choices: list[torch.nn.Module] = []
    if mixup:
        choices.append(v2.MixUp(alpha=mixup))
    if cutmix:
        choices.append(v2.CutMix(alpha=cutmix))
    if not choices:
        return lambda images, targets: (images, targets)
    mix = v2.RandomChoice(choices)
    return lambda images, targets: mix(images.float(), targets)
