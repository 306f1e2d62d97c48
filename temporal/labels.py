"""The labels that a head is trained and scored on."""

import hashlib
import sys
from collections.abc import Sequence

import numpy as np

from checkpoints.errors import UserError
from features.cache import FeatureCache
from temporal.heads import tasks_of
from temporal.recipes import Temporal
from wildaffect.tasks.class_map import ClassMap
from wildaffect.tasks.label_track import Tracks
from wildaffect.tasks.labels import TRAIN, VALIDATION, read_annotations
from wildaffect.tasks.leaks import together


def read_labels(config: Temporal, caches: Sequence[FeatureCache]) -> tuple[dict[str, Tracks], list[str], list[str]]:
    """Labels by task, ids of the training split, ids of the validation split.

    Raises:
        UserError: There are no labels of a training split.
    """
    names, spans = ClassMap(config.class_map), spans_of(caches)
    by_split = {
        split: {
            task.name: read_annotations(config.labels, task, split, class_map=names, spans=spans)
            for task in tasks_of(config.task)
        }
        for split in (TRAIN, VALIDATION)
    }
    for line in names.lines():
        print(line)
    ids = {split: sorted({id for by_id in by_task.values() for id in by_id}) for split, by_task in by_split.items()}
    if not ids[TRAIN]:
        raise UserError(
            f"{config.labels} holds no {config.task} labels of a training split: expected the release, its "
            "'... ABAW Annotations' folder, the task's folder with its two splits, an MTL folder, a CSV or "
            "Parquet table, or class-named folders of pictures"
        )
    # In the release an id may validate one task and train another; `temporal.splits.apart` does not train on it.
    validation = set(ids[VALIDATION])
    labels = {
        name: {id: track for id, track in by_split[TRAIN][name].items() if id not in validation}
        | by_split[VALIDATION][name]
        for name in by_split[TRAIN]
    }
    return labels, ids[TRAIN], ids[VALIDATION]


def spans_of(caches: Sequence[FeatureCache]) -> dict[str, tuple[int, int]]:
    """First and last frame of each sequence of the first cache."""
    return {id: caches[0].span(id) for id in caches[0].ids}


def labels_seen(
    caches: Sequence[FeatureCache], *, rule_clean: bool = False
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Task name -> ids whose labels taught any of the encoders; the same of labels that chose one of their states.

    Raises:
        UserError: Under `rule_clean`, for a cache that does not say what chose its encoder; otherwise it is warned of.
    """
    for cache in caches:
        if cache.chosen_on is None:
            text = f"{cache.path} does not say whose labels chose its encoder: run features/run.py again (it is quick)"
            if rule_clean:
                raise UserError(f"--rule-clean: {text}")
            print(f"warning: {text}", file=sys.stderr)
    return together(*(cache.trained_on for cache in caches)), together(*(cache.chosen_on or {} for cache in caches))


def labels_id(tracks: dict[str, Tracks]) -> str:
    """Hash of all labels: other labels make another run."""
    digest = hashlib.sha256()
    for task, by_id in sorted(tracks.items()):
        for id, track in sorted(by_id.items()):
            digest.update(f"{task}\0{id}\0{len(track)}\n".encode() + track.labels.tobytes())
            if track.soft is not None:
                digest.update(np.ascontiguousarray(track.soft).tobytes())
    return digest.hexdigest()
