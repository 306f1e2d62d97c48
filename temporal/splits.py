"""Which sequences train the head, which ones choose epoch, smoothing and thresholds, and which are scored."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from checkpoints.errors import UserError
from temporal.data import FrameTable
from temporal.heads import tasks_of
from temporal.recipes import Temporal
from wildaffect.tasks.class_map import ClassMap
from wildaffect.tasks.folds import group_of, groups, release_folds, without
from wildaffect.tasks.label_track import Spans


@dataclass(frozen=True)
class Split:
    """Ids of one training.

    Attributes:
        train: sequences to train on.
        tune: sequences on which epoch, smoothing and thresholds are chosen.
        report: sequences that are only scored.
    """

    train: list[str]
    tune: list[str]
    report: list[str]


def apart(train: Sequence[str], validation: Sequence[str]) -> list[str]:
    """Leave out training ids of recordings in the validation split, by the rule of every split, and say how many.

    Subjects and parts of one recording may be in different splits, and for joint heads an id may be in the training
    split of one task and the validation split of another.
    """
    both = len(set(train) & set(validation))
    kept = without(train, validation)
    for number, why in (
        (both, "are in the validation split as well, usually another task's"),
        (len(train) - len(kept) - both, "share their recording with a validation video (another subject or part)"),
    ):
        if number:
            print(f"note: {number} of {len(train)} training sequences {why}: not trained on")
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
    """Make one split, or one per fold. A recording is never divided, nor are its subjects and parts.

    If there are enough of them, the held-out videos are ones whose labels the encoder was not trained on either. It
    gives better features for its own training videos than for new ones, which would mislead the choice.

    Args:
        lengths: training id -> frames.
        report: ids that are only scored.
        folds: ids of each fold, of any task and split; empty: hold out a share once.
        share: share of the videos to hold out.
        seed: seed of the random choice.
        seen: ids whose labels the encoder was trained on.

    Raises:
        UserError: there are too few videos.
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
            "there is only one training video, so none can be held out to choose the epoch (two subjects count as one)"
        )
    known = {group_of(id) for id in seen}
    fresh = [name for name, members in together.items() if not any(group_of(id) in known for id in members)]
    pool = fresh if len(fresh) >= max(1, wanted / 2) else list(together)
    order = np.random.default_rng(seed).permutation(len(pool))[: min(wanted, len(together) - 1)]
    held = sorted(id for index in order for id in together[pool[index]])
    return [Split(sorted(set(lengths) - set(held)), held, report)]


def choose_splits(
    config: Temporal,
    table: FrameTable,
    train: list[str],
    validation: list[str],
    encoder_saw: dict[str, list[str]],
    spans: Spans,
) -> list[Split]:
    """Make the splits that a configuration asks for.

    With `tune_on="validation"`, epoch, smoothing and thresholds are chosen on the validation videos, and none is only
    scored. `encoder_saw` maps each task to the ids whose labels the encoders were trained on; `spans` are those of the
    caches, which folds need for labels without frame numbers.

    Raises:
        UserError: there are too few videos, or the options contradict each other.
    """
    if config.tune_on == "validation":
        if not validation:
            raise UserError(f"--tune-on validation: {config.labels} has no {config.task} validation split to choose on")
        if config.folds:
            raise UserError("--folds tunes each head on the fold that it leaves out: do not combine it with --tune-on")
        return [Split(train, validation, [])]
    folds: list[list[str]] = []
    if config.folds:
        names, required = ClassMap(config.class_map), [task.name for task in tasks_of(config.task)]
        folds = release_folds(config.labels, config.folds, config.seed, class_map=names, spans=spans, required=required)
    return make_splits(
        {id: table.spans[i][1] for id, i in zip(train, table.select(train), strict=True)},
        validation,
        folds=folds,
        share=config.hold_out,
        seed=config.seed,
        seen={id for ids in encoder_saw.values() for id in ids},
    )
