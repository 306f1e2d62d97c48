"""Ranges of the numbers on a command line, checked before anything is read or written."""

from math import inf, isfinite
from typing import Any

from checkpoints.errors import UserError

POSITIVE = (1e-12, inf)
COUNT = (1, inf)
ANY = (0, inf)
SHARE = (0, 1)
BELOW_ONE = (0, 1 - 1e-9)

# Options of all stages, by name: a name means the same everywhere.
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("batch_size", "micro_batch_size", "save_every", "log_every", "evaluations"), COUNT),
    **dict.fromkeys(("image_size", "patch_size", "embed_dim", "depth", "num_heads"), COUNT),
    **dict.fromkeys(("decoder_dim", "decoder_depth", "decoder_heads"), COUNT),
    **dict.fromkeys(("window", "stride", "seeds", "width", "attention_heads", "feedforward", "fusion_width"), COUNT),
    **dict.fromkeys(("tcn_channels", "tcn_kernel"), COUNT),
    **dict.fromkeys(("steps", "looks", "workers", "seed", "layers", "hidden", "folds", "patience"), ANY),
    **dict.fromkeys(("frames_per_video", "validation_frames_per_video", "rate", "smoothing_width"), ANY),
    **dict.fromkeys(("weights", "weight_decay", "clip_grad", "mixup", "cutmix", "mse", "mae"), ANY),
    **dict.fromkeys(("epochs", "lr", "std"), POSITIVE),
    **dict.fromkeys(
        ("warmup", "colour_jitter", "erasing", "blur", "label_smoothing", "cache_dropout", "temper_prior"), SHARE
    ),
    **dict.fromkeys(("dropout", "drop_path", "patch_drop", "ema", "ema_decay"), BELOW_ONE),
    **dict.fromkeys(("mask_ratio", "hold_out"), BELOW_ONE),
    **dict.fromkeys(("max_megabytes", "max_waiting"), COUNT),
    "max_minutes": POSITIVE,
    "port": (1, 65535),
    "crop_scale": (1e-6, 1),
    "framing_jitter": (0, 0.5),
    "layer_decay": (1e-6, 1),
    "randaugment": (0, 30),
}


def check_ranges(config: Any) -> None:
    """Check the numbers in a command's dataclass against :data:`RANGES`, and those that depend on each other.

    Raises:
        UserError: An option is out of range, not a number, or does not fit another; the message names the first.
    """
    for name, value in vars(config).items():
        least, most = RANGES.get(name, (-inf, inf))
        numbers = [number for number in (value if isinstance(value, tuple) else (value,)) if _is_number(number)]
        if name in RANGES and not all(isfinite(number) and least <= number <= most for number in numbers):
            text = " ".join(map(str, value if isinstance(value, tuple) else (value,)))
            raise UserError(f"--{name.replace('_', '-')} {text}: expected {_range(least, most)}")
    small, large = getattr(config, "crop_scale", (0, 1))
    if small > large:
        raise UserError(f"--crop-scale {small:g} {large:g}: expected the smaller fraction first")
    window, stride = getattr(config, "window", 1), getattr(config, "stride", 1)
    if stride > window and getattr(config, "readout", "frames") == "frames":
        raise UserError(
            f"--stride {stride} is longer than --window {window}: frames between two windows would get no prediction; "
            f"use --stride {window} or less"
        )
    if getattr(config, "folds", 0) == 1:
        raise UserError("--folds 1: a head is trained on all folds but one; use 2 or more, or 0 for none")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _range(least: float, most: float) -> str:
    if most == inf:
        return "a number above 0" if least == POSITIVE[0] else f"{least:g} or more"
    return f"a number from {'above 0' if 0 < least < 1 else f'{least:g}'} to {'below 1' if most < 1 else f'{most:g}'}"
