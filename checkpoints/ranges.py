"""Ranges of the numbers on a command line, checked before anything is read or written."""

from typing import Any

from checkpoints.errors import UserError

HUGE = 10**9
COUNT = (1, HUGE)
ANY = (0, HUGE)
POSITIVE = (1e-12, HUGE)
WIDTH = (1, 65_536)
SHARE = (0, 1)
BELOW_ONE = (0, 1 - 1e-9)

# Options of all commands, by name: a name means the same everywhere.
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("save_every", "log_every", "evaluations", "max_megabytes", "max_waiting"), COUNT),
    **dict.fromkeys(("steps", "looks", "patience", "frames_per_video", "validation_frames_per_video"), ANY),
    **dict.fromkeys(("weights", "weight_decay", "clip_grad", "mixup", "cutmix", "mse", "rate", "smoothing_width"), ANY),
    **dict.fromkeys(("epochs", "lr", "std", "max_minutes"), POSITIVE),
    **dict.fromkeys(("embed_dim", "decoder_dim", "width", "feedforward", "fusion_width", "tcn_channels"), WIDTH),
    **dict.fromkeys(("num_heads", "decoder_heads", "attention_heads", "heads"), (1, 1024)),
    **dict.fromkeys(("image_size", "patch_size"), (1, 4096)),
    **dict.fromkeys(("depth", "decoder_depth", "tcn_kernel", "seeds"), (1, 1000)),
    **dict.fromkeys(("window", "stride"), (1, 10_000)),
    **dict.fromkeys(("batch_size", "micro_batch_size"), (1, 1_000_000)),
    **dict.fromkeys(
        ("warmup", "colour_jitter", "erasing", "blur", "label_smoothing", "cache_dropout", "temper_prior", "mean"),
        SHARE,
    ),
    **dict.fromkeys(("dropout", "drop_path", "patch_drop", "ema", "ema_decay", "mask_ratio", "hold_out"), BELOW_ONE),
    "hidden": (0, 65_536),
    "layers": (0, 1000),
    "workers": (0, 1024),
    "seed": (0, 2**31 - 1),
    "folds": (0, 1000),
    "k": (2, 1000),
    "port": (1, 65_535),
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
        if name not in RANGES or value == getattr(type(config), name, None):  # a default may mean "none"
            continue
        least, most = RANGES[name]
        numbers = [number for number in (value if isinstance(value, tuple) else (value,)) if _is_number(number)]
        if not all(least <= number <= most for number in numbers):  # false for NaN
            text = " ".join(map(str, value if isinstance(value, tuple) else (value,)))
            raise UserError(f"--{name.replace('_', '-')} {text[:40]}: expected {_range(least, most, max(numbers))}")
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


def _range(least: float, most: float, largest: float) -> str:
    least_text = "above 0" if 0 < least < 1 else f"{least:g}"
    if most == HUGE and not largest > most:
        return "a number above 0" if 0 < least < 1 else f"{least_text} or more"
    most_text = "below 1" if most == BELOW_ONE[1] else f"{most:,}"
    return f"a number from {least_text} to {most_text}"
