"""The starter weights from labelled faces: `make starter DATA=FOLDER`, about three hours on two cores.

Runs the stage commands one after another: faces in ArcFace's framing; stage 2 from an untrained network on raters'
votes, first with strong and then with light augmentation; features; heads for expressions and for valence and arousal
derived from the votes; the bundle; scores on faces used neither for training nor for selection. With a face
model, stage 2 ends on the votes together with action units of rendered faces, and a head for action units is trained on
these. To resume, give the same command again.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from checkpoints.artifact import write_json
from checkpoints.errors import UserError, guarded
from checkpoints.lock import sole_writer
from checkpoints.ranges import check_ranges
from demo import Stages


@dataclass(frozen=True)
class Starter:
    """Train the starter weights and score them."""

    data: Path
    """Folder with `ferplus/{train,validation}.parquet`, `muxspace/`, `london/` and `manifest.csv`."""
    out: Path = Path("runs/starter")
    """Folder for all results."""
    model: Path | None = None
    """The morphable face model of synthwild/morphable.py, to learn action units from rendered faces; none: do not."""
    bundle: Path | None = None
    """Where the bundle goes: a new folder. None: `bundle` in `out`."""
    workers: int = 2
    """Number of processes for face detection."""
    epochs: float = 24.0
    """Epochs of the first pass of stage 2."""
    stills: int = 12_000
    """Number of rendered pictures."""


MINUTES = {"faces": 16, "labels": 1, "encoder": 130, "features": 8, "heads": 10, "scores": 1}
"""The stages, and about how long each takes on two cores."""


@sole_writer
def main(config: Starter) -> dict[str, Any]:
    """Run all stages and return the summary.

    Raises:
        UserError: The folder lacks a data set or labels, or `bundle` holds something else.
    """
    check_ranges(config)
    from starter_card import data_lines
    from starter_scores import check_data, check_labels, score, score_lines
    from starter_steps import extract, find_faces, train_encoder, train_heads, write_labels
    from wildaffect.inference.bundle import write_bundle

    check_data(config.data)
    check_labels(config.data)
    bundle = config.bundle or config.out / "bundle"
    is_written(bundle, heads_of(config.out))
    stages = Stages(config.out, MINUTES)
    stages.run("faces", lambda: find_faces(config))
    stages.run("labels", lambda: write_labels(config))
    stages.run("encoder", lambda: train_encoder(config))
    stages.run("features", lambda: extract(config))
    tempers = stages.run("heads", lambda: train_heads(config))
    scores = stages.run("scores", lambda: score(config.out, config.data))
    summary = {
        "stages": {name: {"seconds": round(seconds, 1)} for name, seconds in stages.seconds.items()},
        "temper_prior": tempers,
        "scores": scores,
    }
    write_json(config.out / "summary.json", summary)
    heads = heads_of(config.out)
    if not is_written(bundle, heads):
        write_bundle(heads, bundle, data=data_lines((config.out / "au").exists()), scores=score_lines(scores))
    for line in score_lines(scores):
        print(line)
    print(f"\nThe weights: wildaffect predict CLIP --heads {bundle}")
    return summary


def heads_of(out: Path) -> list[Path]:
    """The heads that are there to be bundled."""
    return [out / name for name in ("expr", "va", "au") if (out / name / "head" / "config.json").exists()]


def is_written(bundle: Path, heads: list[Path]) -> bool:
    """Whether a bundle holds these heads already.

    Raises:
        UserError: It holds others.
    """
    from wildaffect.inference.bundle import made_from
    from wildaffect.inference.models import load_models

    if not bundle.exists() or not any(bundle.iterdir()):
        return False
    if not heads or made_from(bundle) != load_models(heads).fingerprint:
        raise UserError(f"--bundle {bundle} holds other weights: name a folder that does not exist")
    return True


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Starter, description=__doc__)))
