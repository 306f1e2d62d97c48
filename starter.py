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
from checkpoints.errors import guarded
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
    bundle: Path = Path("checkpoints/starter")
    """Where the bundle goes."""
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
        UserError: The folder lacks one of the data sets.
    """
    check_ranges(config)
    from starter_scores import check_data, check_labels, score, score_lines
    from starter_steps import LICENCES, extract, find_faces, train_encoder, train_heads, write_labels
    from wildaffect.inference.bundle import write_bundle

    check_data(config.data)
    check_labels(config.data)
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
    if not config.bundle.exists():
        heads = [config.out / name for name in ("expr", "va", "au") if (config.out / name).exists()]
        write_bundle(heads, config.bundle, data=[*LICENCES], scores=score_lines(scores))
    for line in score_lines(scores):
        print(line)
    return summary


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Starter, description=__doc__)))
