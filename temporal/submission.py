"""Writes challenge files from heads and cached features, and validates them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from checkpoints.errors import UserError, some
from temporal.caches import open_caches, pick_caches
from temporal.data import frame_rate, refuse_missing
from temporal.heads import load_heads
from temporal.predict import decode, predict_cached
from wildaffect.tasks import TASKS, challenge


def check_submission(path: Path, example: Path) -> dict[str, Any]:
    """Validate a challenge file against the official example file.

    Returns:
        Its `form` and its number of `frames`.

    Raises:
        UserError: the file is invalid; the message names the first wrong line.
    """
    form = challenge.form_of(example)
    frames = challenge.check_challenge_file(path, form, example)
    print(f"{path} is a valid {form} challenge file: {frames:,} frames{compared(form, frames)}")
    return {"form": form, "frames": frames}


def write_submission(out: Path, heads: Sequence[Path], features: Sequence[Path], example: Path) -> dict[str, Any]:
    """Predict the frames of the official example file and write the challenge file.

    The values of all heads (runs or head directories) are averaged. A sequence without any face gets the mean values of
    the sequences that have one.

    Returns:
        Its `form` and its number of `frames`.

    Raises:
        UserError: no head predicts a task, a head does not fit the features, or no listed sequence has a face.
    """
    form = challenge.form_of(example)
    listed = challenge.read_example(example)
    loaded = load_heads(heads, "cuda" if torch.cuda.is_available() else "cpu")
    caches = open_caches(features)
    wanted = challenge.parts(form)
    lacking = [name for name in wanted if not any(task.name == name for head in loaded for task in head.tasks)]
    if lacking:
        raise UserError(f"none of the heads predicts {', '.join(lacking)}, which {example} asks for")
    loaded = [head for head in loaded if any(task.name in wanted for task in head.tasks)]
    if withheld := sorted({name for head in loaded for name in head.withheld}):
        raise UserError(f"the heads withhold {', '.join(withheld)}, which {example} asks for")
    for head in loaded:
        pick_caches(head, caches)  # refuses wrong features before any work is done
    for cache in caches:
        refuse_missing(cache, listed.ids)
    decoded: dict[str, dict[str, Any]] = {name: {} for name in wanted}
    sums: dict[str, Any] = dict.fromkeys(wanted, 0.0)
    unseen, frames_seen = [], 0
    for id in listed.ids:
        values, read = predict_cached(loaded, caches, id, listed.last_frame(id))
        if not read.valid.any():
            unseen.append(id)
            continue
        frames_seen += len(read.valid)
        for name in wanted:
            sums[name] = sums[name] + values[name].sum(axis=0, dtype=np.float64)
            decoded[name][id] = decode(loaded, name, values[name], frame_rate(read.time_s))
    if unseen:
        if not frames_seen:
            raise UserError(
                f"no sequence that {example} lists has a face in any frame of {', '.join(map(str, features))}"
            )
        print(
            f"{len(unseen)} of {len(listed.ids)} sequences have no face in any frame ({some(unseen, 3)}): their frames "
            "get the mean prediction of the others"
        )
        for name in wanted:
            for id in unseen:
                mean = np.tile(sums[name] / frames_seen, (listed.last_frame(id), 1))
                decoded[name][id] = decode(loaded, name, mean, 30.0)
    challenge.write_challenge_file(out, form, listed, decoded)
    frames = len(listed.locations)
    titles = " and ".join(TASKS[name].title.lower() for name in wanted)
    print(f"{out}: {titles} for {frames:,} frames of {len(listed.ids)} sequences{compared(form, frames)}")
    return {"form": form, "frames": frames}


def compared(form: str, frames: int) -> str:
    """Compare a number of frames with the number published for the 6th ABAW's test set."""
    published = challenge.PUBLISHED_LINES.get(form)
    if published is None:
        return ""
    if frames == published:
        return ", as many as in the 6th ABAW's test set"
    return f" (the 6th ABAW's test set: {published:,})"
