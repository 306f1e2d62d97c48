"""One tiny product of every stage, made once by the stages themselves: the material that is damaged."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

import features.run
import features.settings
import finetune.recipes
import finetune.run
import pretrain.recipes
import pretrain.run
import temporal.recipes
import temporal.run
from preprocessing.write_faces import finish_store, write_shard
from wildaffect.inference.bundle import write_bundle

VIDEOS, FRAMES, SIDE = 10, 8, 48


@dataclass(frozen=True)
class Line:
    """Where everything is.

    Attributes:
        root: The folder of all.
    """

    root: Path

    @property
    def pictures(self) -> Path:
        """Folders of frames: what preprocessing reads with `--crops`."""
        return self.root / "pictures"

    @property
    def faces(self) -> Path:
        """The faces store."""
        return self.root / "faces"

    @property
    def labels(self) -> Path:
        """Labels of all tasks as a table."""
        return self.root / "labels.csv"

    @property
    def mae(self) -> Path:
        """The run of stage 1."""
        return self.root / "mae"

    @property
    def expr(self) -> Path:
        """The run of stage 2."""
        return self.root / "expr"

    @property
    def cache(self) -> Path:
        """The feature cache."""
        return self.root / "cache"

    @property
    def head(self) -> Path:
        """The run of stage 3."""
        return self.root / "head"

    @property
    def bundle(self) -> Path:
        """The exported bundle."""
        return self.root / "bundle"


def picture(seed: int) -> bytes:
    """A JPEG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=80)
    return buffer.getvalue()


def make_line(root: Path) -> Line:
    """Make all of it."""
    line = Line(root)
    rows = ["video,frame,split,valence,arousal,expression"]
    for video in range(VIDEOS):
        shard = []
        folder = line.pictures / f"clip{video}"
        folder.mkdir(parents=True)
        split = "validation" if video >= VIDEOS - 3 else "train"
        for frame in range(1, FRAMES + 1):
            seed = video * 100 + frame
            jpeg = picture(seed) if frame != 4 else None
            if jpeg is not None:
                (folder / f"{frame:05d}.jpg").write_bytes(jpeg)
            shard.append(
                {"video": f"clip{video}", "subject": "", "frame": frame, "time_s": (frame - 1) / 25, "image": jpeg}
            )
            value = np.sin(seed)
            rows.append(f"clip{video},{frame},{split},{value:.3f},{-value:.3f},{seed % 8}")
        write_shard(line.faces, f"clip{video}", shard)
    finish_store(line.faces, made_by="test", config={}, image_size=SIDE, problems=[], synthetic=True)
    line.labels.write_text("\n".join(rows) + "\n", encoding="utf-8")
    pretrain.run.main(pretrain_config(line, line.mae))
    finetune.run.main(finetune_config(line, line.expr))
    features.run.main(features_config(line, line.cache))
    temporal.run.main(temporal_config(line, line.head))
    write_bundle([line.head], line.bundle)
    return line


def pretrain_config(line: Line, out: Path) -> pretrain.recipes.Pretrain:
    """Stage 1 of a few steps."""
    return replace(
        pretrain.recipes.RECIPES["demo"][1],
        faces=(line.faces,),
        out=out,
        image_size=32,
        embed_dim=32,
        depth=1,
        num_heads=2,
        decoder_dim=16,
        decoder_depth=1,
        decoder_heads=2,
        batch_size=8,
        steps=6,
        save_every=2,
        log_every=3,
        looks=2,
        workers=0,
        precision="fp32",
    )


def finetune_config(line: Line, out: Path) -> finetune.recipes.Finetune:
    """Stage 2 of a few steps."""
    return replace(
        finetune.recipes.RECIPES["demo"][1],
        faces=line.faces,
        labels=line.labels,
        encoder=str(line.mae),
        out=out,
        epochs=2.0,
        batch_size=16,
        micro_batch_size=16,
        evaluations=2,
        save_every=2,
        log_every=2,
        workers=0,
        precision="fp32",
        pooling="average",
    )


def features_config(line: Line, out: Path) -> features.settings.Extract:
    """Extraction."""
    return features.settings.Extract(encoder=str(line.expr), faces=line.faces, out=out, workers=0, precision="fp32")


def temporal_config(line: Line, out: Path) -> temporal.recipes.Temporal:
    """Stage 3 of a few steps."""
    return replace(
        temporal.recipes.recipe("demo", "va"),
        features=(line.cache,),
        labels=line.labels,
        out=out,
        epochs=2.0,
        evaluations=2,
        save_every=2,
        log_every=1,
    )


def commands(line: Line, out: Path) -> dict[str, list[str]]:
    """Command lines of everything that writes a directory, by name; each writes `out`."""
    tiny = {
        "pretrain": (pretrain_config(line, out), pretrain.recipes.RECIPES["demo"][1]),
        "finetune": (finetune_config(line, out), finetune.recipes.RECIPES["demo"][1]),
        "temporal": (temporal_config(line, out), temporal.recipes.recipe("demo", "va")),
    }

    def changed(name: str) -> list[str]:
        config, recipe = tiny[name]
        found: list[str] = []
        for key, value in vars(config).items():
            if value != getattr(recipe, key) and key not in ("task", "recipe"):
                values = value if isinstance(value, tuple) else (value,)
                found += [f"--{key.replace('_', '-')}", *map(str, values)]
        return found

    return {
        "preprocessing": [
            *("preprocessing/run.py", "--source", str(line.pictures), "--crops", "--framing", "unknown"),
            *("--workers", "1", "--out", str(out)),
        ],
        "pretrain": ["pretrain/run.py", "demo", *changed("pretrain")],
        "finetune": ["finetune/run.py", "demo", *changed("finetune")],
        "features": [
            *("features/run.py", "--encoder", str(line.expr), "--faces", str(line.faces), "--workers", "0"),
            *("--precision", "fp32", "--out", str(out)),
        ],
        "temporal": ["temporal/run.py", "va", "demo", *changed("temporal")],
        "export": ["wildaffect/cli.py", "export", "--heads", str(line.head), "--out", str(out)],
        "convert": ["checkpoints/convert.py", str(line.expr), "--out", str(out)],
        "predict": [
            *("wildaffect/cli.py", "predict", str(line.pictures / "clip0"), "--heads", str(line.head)),
            *("--device", "cpu", "--out", str(out)),
        ],
        "synthwild": ["synthwild/run.py", "--size", "tiny", "--out", str(out)],
    }
