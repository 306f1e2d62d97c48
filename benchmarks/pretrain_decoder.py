"""Does the light decoder cost quality? Stage 1 on real faces with both decoders at equal steps, and a linear probe.

    python benchmarks/pretrain_decoder.py --real runs/real --out runs/decoder

Recipe `small` (ViT-S/16 at 112 px) is too slow for thousands of steps on two CPU cores, so everything is reduced in
proportion: widths to a quarter, depths to a half, and pixels to FER+'s own 48 in patches of 6. The recipe's 4 x 384
decoder becomes 2 x 96, the original's 8 x 512 becomes 4 x 128; mask ratio, normalised targets and crops stay the
recipe's. An encoder with random weights shows where the probe starts.

The probe is logistic regression with balanced classes on frozen patch tokens, averaged (`mean`) or concatenated
(`tokens`), of 6,000 pictures of FER+ `train`; a tenth of `train` chooses its regularisation, FER+ `validation` is
scored. Every run of stage 1 has its own folder, so an interrupted study resumes where it was.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.finetune_study import PROBES, ferplus, probe
from benchmarks.real_faces import UNLABELLED
from checkpoints.artifact import read_json, write_json
from checkpoints.encoder import save_encoder
from checkpoints.errors import guarded
from pretrain.build import build
from pretrain.recipes import RECIPES, Pretrain
from pretrain.run import main as pretrain

DECODERS = {"light": (96, 2, 3), "full": (128, 4, 4)}  # width, blocks, heads (of 32, as in the original)


@dataclass
class Config:
    """Train with both decoders, probe, compare."""

    real: Path
    """Run of benchmarks/real_faces.py, whose faces stores are trained on and probed."""
    out: Path
    """Folder of all runs."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the runs with each decoder; two or more."""
    steps: int = 2000
    """Optimizer steps per run."""
    result: Path = Path("benchmarks/results/pretrain_decoder.json")
    """Where to record the result as JSON."""


def recipe(config: Config, decoder: str, seed: int) -> Pretrain:
    """The recipe `small`, reduced."""
    width, depth, heads = DECODERS[decoder]
    return replace(
        RECIPES["small"][1],
        faces=tuple(config.real / "faces" / name for name in UNLABELLED),
        out=config.out / f"{decoder}_{seed}",
        image_size=48,
        patch_size=6,
        embed_dim=96,
        depth=6,
        num_heads=3,
        decoder_dim=width,
        decoder_depth=depth,
        decoder_heads=heads,
        batch_size=64,
        steps=config.steps,
        lr=1e-3,
        workers=0,
        looks=1,
        save_every=250,
        log_every=100,
        seed=seed,
    )


def main(config: Config) -> dict[str, Any]:
    """Run what is missing and return the table, which always shows the completed seeds."""
    rows: dict[str, list[dict[str, float]]] = {"untrained": [], **{name: [] for name in DECODERS}}
    result: dict[str, Any] = {}
    for seed in config.seeds:
        rows["untrained"].append(scores(config, write_untrained(config, seed), seed))
        for decoder in DECODERS:
            settings = recipe(config, decoder, seed)
            loss = pretrain(settings)["loss"]
            rows[decoder].append(scores(config, settings.out, seed) | {"loss": loss})
        result = table(config, rows)
        write_json(config.result, result)
    return result


def write_untrained(config: Config, seed: int) -> Path:
    """The encoder that a run begins with."""
    where = config.out / f"untrained_{seed}"
    if not (where / "config.json").exists():
        torch.manual_seed(seed)
        encoder = build(recipe(config, "light", seed)).encoder
        save_encoder(where, encoder, made_by="benchmarks/pretrain_decoder.py", recipe={}, parents={})
    return where


def scores(config: Config, run: Path, seed: int) -> dict[str, float]:
    """Macro F1 of both probes of an encoder, or what an earlier call recorded."""
    path = run / "probe.json"
    if not path.exists():
        data = ferplus(config.real)
        write_json(path, {row: probe(run, data, row, seed, 0) for row in PROBES})
    return dict(read_json(path))


def table(config: Config, rows: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """All scores, and light minus full by seed with its standard error."""
    difference = {}
    for key in PROBES:
        by_seed = [light[key] - full[key] for light, full in zip(rows["light"], rows["full"], strict=True)]
        error = float(np.std(by_seed, ddof=1) / np.sqrt(len(by_seed))) if by_seed[1:] else None
        difference[key] = {"mean": float(np.mean(by_seed)), "standard_error": error, "by_seed": by_seed}
        print(f"{key}: light - full = {difference[key]}", flush=True)
    return {
        "stands_for": "recipe `small` with decoder 4x384 (light) against 8x512 (full), reduced in proportion",
        "encoder": "96 wide, 6 blocks, 48 px in patches of 6 (ViT-S/16 at 112 px: 384, 12 blocks)",
        "decoders": {name: {"dim": d, "depth": n, "heads": h} for name, (d, n, h) in DECODERS.items()},
        "steps": config.steps,
        "batch_size": 64,
        "seeds": list(config.seeds[: len(rows["full"])]),
        "score": "macro-F1 on FER+ validation of a linear probe of frozen tokens",
        "rows": rows,
        "light_minus_full": difference,
    }


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Config, description=__doc__)))
