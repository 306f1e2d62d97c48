"""Which sequences teach, which choose, which are scored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from checkpoints.errors import UserError
from wildaffect.tasks.folds import base_video, group_of, groups


@dataclass(frozen=True)
class Split:
    """Ids of a training.

    Attributes:
        train: teach.
        tune: choose epoch, smoothing and thresholds.
        report: are only scored.
    """

    train: list[str]
    tune: list[str]
    report: list[str]


def apart(train: Sequence[str], validation: Sequence[str]) -> list[str]:
    """Training ids without those that share a video with a validation id.

    The other subject of a video may stand in the other split (in the release two Expr videos do), and for joint heads a
    video may train one task and validate another. Parts of one recording stay where the organisers put them, so that
    scores on the official split are comparable.
    """
    held = {base_video(id) for id in validation}
    kept = [id for id in train if base_video(id) not in held]
    if len(kept) < len(train):
        print(
            f"{len(train) - len(kept)} of {len(train)} training sequences share a video with validation: not trained on"
        )
    return kept


def make_splits(
    lengths: Mapping[str, int],
    report: list[str],
    *,
    folds: Sequence[Collection[str]],
    share: float,
    seed: int,
    seen: Collection[str],
) -> list[Split]:
    """One split, or one per fold; recordings are kept whole, with all their subjects and parts.

    What is held out are, where there are enough of them, videos whose labels the encoder was not trained on either:
    features of videos it was trained on are better than those of new ones and would mislead the choice.

    Args:
        lengths: training id -> frames.
        report: ids that are only scored.
        folds: ids of each fold, whatever their task and split; none: hold out a share once.
        share: that share of the videos.
        seed: which of the many such splits.
        seen: ids whose labels the encoder was trained on.

    Raises:
        UserError: when there are too few videos.
    """
    if folds:
        parts = [sorted(set(lengths) & set(fold)) for fold in folds]
        if empty := [number for number, part in enumerate(parts) if not part]:
            raise UserError(
                f"fold {empty[0]} of {len(folds)} holds no training video of this task: ask for fewer folds"
            )
        return [Split(sorted(set(lengths) - set(part)), part, report) for part in parts]
    together = groups(lengths)
    wanted = max(1, round(share * len(together)))
    if len(together) < 2:
        raise UserError(
            "there is one training video: none can be held out to choose the epoch (two subjects count as one)"
        )
    known = {group_of(id) for id in seen}
    fresh = [name for name, members in together.items() if not any(group_of(id) in known for id in members)]
    pool = fresh if len(fresh) >= max(1, wanted / 2) else list(together)
    order = np.random.default_rng(seed).permutation(len(pool))[: min(wanted, len(together) - 1)]
    held = sorted(id for index in order for id in together[pool[index]])
    return [Split(sorted(set(lengths) - set(held)), held, report)]
