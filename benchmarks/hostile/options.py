"""Nonsense on command lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.hostile.line import Line, commands
from benchmarks.hostile.outcome import Tally, run_command

NO_NUMBERS = ("nan", "-inf", "nosuch", "", "0x10", "1_000", "\u0663", "\uff13", "1e999", "9" * 5000)
"""These must be refused."""
NUMBERS = ("-1", "0", "1e30", "99999999999999999999", "3.5", *NO_NUMBERS)
WORDS = ("nosuch", "", "cuda:99", "meta", "-1", "/", "\n", "a" * 5000, "..", "~", "%s{}", "\x1b[31m")
SEARCHED: dict[str, dict[str, tuple[str, ...]]] = {
    "preprocessing": {"numbers": ("workers", "size"), "words": ("device", "shard", "framing", "source")},
    "pretrain": {
        "numbers": (
            "batch-size",
            "epochs",
            "lr",
            "mask-ratio",
            "seed",
            "workers",
            "num-heads",
            "looks",
            "micro-batch-size",
        ),
        "words": ("precision", "tracker", "architecture", "faces", "init", "exclude", "crop-scale", "mean"),
    },
    "finetune": {
        "numbers": ("batch-size", "epochs", "lr", "drop-path", "seed", "workers", "evaluations", "randaugment"),
        "words": ("precision", "view", "encoder", "labels", "class-map", "pooling", "crop-scale"),
    },
    "features": {"numbers": ("batch-size", "workers"), "words": ("encoder", "faces", "view", "precision", "labels")},
    "temporal": {
        "numbers": ("window", "stride", "folds", "seeds", "epochs", "width", "attention-heads", "seed", "hold-out"),
        "words": ("features", "labels", "tcn-channels", "smoothing", "fusion", "class-map"),
    },
    "predict": {"numbers": ("batch-size",), "words": ("device", "heads", "runtime", "prior", "adapt")},
    "convert": {"numbers": ("image-size", "heads"), "words": ("architecture", "pooling", "to", "drop")},
    "export": {"numbers": (), "words": ("heads",)},
    "synthwild": {"numbers": ("seed", "workers"), "words": ("size",)},
}
LIMIT_S = 120.0


def nonsense(line: Line, work: Path, rng: np.random.Generator, count: int) -> Tally:
    """Run commands with one option that makes no sense: they end at once, with a message."""
    tally = Tally()
    names = list(SEARCHED)
    for number in range(count):
        name = names[number % len(names)]
        kinds = [kind for kind in ("numbers", "words") if SEARCHED[name][kind]]
        kind = str(rng.choice(kinds))
        option = str(rng.choice(SEARCHED[name][kind]))
        value = str(rng.choice(NUMBERS if kind == "numbers" else WORDS))
        out = work / f"nonsense{number}"
        end = run_command([*commands(line, out)[name], f"--{option}={value}"], seconds=LIMIT_S)
        taken = kind == "numbers" and value in NO_NUMBERS and end.status != 2
        tally.add(f"{name} --{option} {value[:40]!r}", f"status {end.status}", end.fault or ("taken" if taken else ""))
    return tally
