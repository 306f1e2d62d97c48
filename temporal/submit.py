"""Challenge files, written and validated.

Write: `python temporal/submit.py --heads RUN... --features CACHE... --example EXAMPLE --out FILE`
Check: `python temporal/submit.py --check FILE --example EXAMPLE`
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoints.errors import UserError, guarded


@dataclass(frozen=True, kw_only=True)
class Submit:
    """Write a challenge file from heads and cached features, or validate anybody's (--check)."""

    example: Path
    """Official example file: the frames wanted, in order; its header says which task (VA, EXPR, AU, MTL)."""
    heads: tuple[Path, ...] = ()
    """Runs or head directories; the values of several are averaged (a run with folds counts as its heads)."""
    features: tuple[Path, ...] = ()
    """Feature caches of the test videos; each head takes those it was trained on."""
    out: Path | None = None
    """Challenge file to write."""
    check: Path | None = None
    """Challenge file to validate instead: exit status 0 when valid, 2 with the first offending line when not."""


def main(config: Submit) -> dict[str, Any]:
    """Write or check a challenge file; returns its form and number of frames.

    Raises:
        UserError: for anything missing, a head that does not fit the features, or an invalid file.
    """
    from wildaffect.tasks import challenge

    form = challenge.form_of(config.example)
    if config.check is not None:
        frames = challenge.check_challenge_file(config.check, form, config.example)
        print(f"{config.check} is a valid {form} challenge file: {frames:,} frames{_compare(form, frames)}")
        return {"form": form, "frames": frames}
    if not config.heads or not config.features or config.out is None:
        raise UserError(
            "to write a challenge file give --heads, --features and --out (or --check FILE to validate one)"
        )

    import torch

    from temporal.data import frame_rate, open_caches
    from temporal.heads import load_heads
    from temporal.predict import decode, pick_caches, predict_cached
    from wildaffect.tasks import TASKS

    example = challenge.read_example(config.example)
    heads = load_heads(config.heads, "cuda" if torch.cuda.is_available() else "cpu")
    caches = open_caches(config.features)
    wanted = challenge.parts(form)
    lacking = [name for name in wanted if not any(task.name == name for head in heads for task in head.tasks)]
    if lacking:
        raise UserError(f"none of the heads predicts {', '.join(lacking)}, which {config.example} asks for")
    heads = [head for head in heads if any(task.name in wanted for task in head.tasks)]
    for head in heads:
        pick_caches(head, caches)
    decoded: dict[str, dict[str, Any]] = {name: {} for name in wanted}
    for id in example.ids:
        values, read = predict_cached(heads, caches, id, example.last_frame(id))
        for name in wanted:
            decoded[name][id] = decode(heads, name, values[name], frame_rate(read.time_s))
    challenge.write_challenge_file(config.out, form, example, decoded)
    frames = len(example.locations)
    titles = " and ".join(TASKS[name].title.lower() for name in wanted)
    print(f"{config.out}: {titles} for {frames:,} frames of {len(example.ids)} sequences{_compare(form, frames)}")
    return {"form": form, "frames": frames}


def _compare(form: str, frames: int) -> str:
    """Remark on the line counts published with the 6th ABAW's test sets."""
    from wildaffect.tasks.challenge import PUBLISHED_LINES

    published = PUBLISHED_LINES.get(form)
    if published is None:
        return ""
    if frames == published:
        return ", as many as the 6th ABAW's test set has"
    return f" (the 6th ABAW's test set: {published:,})"


def command_line() -> None:
    """Parse the command line and write or check."""
    import tyro

    main(tyro.cli(Submit, description=__doc__))


if __name__ == "__main__":
    guarded(command_line)
