"""Augmentation of single pictures, each with its own random numbers, and mixing within a batch."""

from collections.abc import Callable

import numpy as np
import torch
from torchvision.transforms import v2


def picture_augmentation(
    *, randaugment: int, colour_jitter: float, erasing: float
) -> Callable[[torch.Tensor, np.random.Generator], torch.Tensor] | None:
    """Augmentation of a cropped uint8 picture `[3, S, S]`, or None if all are off.

    Args:
        randaugment: Magnitude of RandAugment's two operations (Cubuk et al. 2020); 0: none.
        colour_jitter: Largest relative change of brightness, contrast and saturation; 0: none.
        erasing: Probability that a rectangle is filled with grey (Zhong et al. 2020).
    """
    transforms: list[torch.nn.Module] = []
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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            for transform in transforms:
                picture = transform(picture)
        return picture

    return augment


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
