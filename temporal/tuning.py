"""Tunes the post-processing of heads on validation videos, and writes heads that have it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.artifact import write_json
from checkpoints.errors import UserError
from checkpoints.lock import sole_writer
from checkpoints.ranges import check_ranges
from features.cache import FeatureCache, moved
from temporal.caches import open_caches
from temporal.data import frame_rate
from temporal.heads import Head, head_directories, load_head, save_head
from temporal.labels import spans_of
from temporal.predict import predict_cached, thresholds_of
from temporal.scored import labels_to_score
from temporal.search import Search, Setting
from temporal.settings import Tune
from temporal.smoothing import RAW, Predicted
from wildaffect.report.card import write_product_card
from wildaffect.tasks import TASKS, Task
from wildaffect.tasks.class_map import ClassMap
from wildaffect.tasks.folds import grouped_folds, label_counts
from wildaffect.tasks.labels import is_synthetic
from wildaffect.tasks.leaks import scoreable, together

MADE_BY = "temporal/tune.py"


@sole_writer
def tune(config: Tune) -> dict[str, Any]:
    """Choose the post-processing of heads, print what that is worth, and write the heads with it.

    Returns:
        What `tuning.json` holds: by task what :meth:`temporal.search.Search.result` returns, the `setting` and the
        number of `videos`.

    Raises:
        UserError: An input is missing or does not fit, or there are too few videos that the heads have not seen.
    """
    check_ranges(config)
    if config.folds < 3:
        raise UserError(f"--folds {config.folds}: nested folds need at least three")
    if (config.out / "tuning.json").exists():
        raise UserError(f"{config.out} holds tuned heads: choose another --out")
    directories = [directory for path in config.heads for directory in head_directories(path)]
    heads = [load_head(directory) for directory in directories]
    caches = open_caches(config.features)
    tasks = [task for task in TASKS.values() if any(head.share(task.name) for head in heads)]
    chosen: dict[str, Setting] = {}
    results: dict[str, Any] = {}
    used: set[str] = set()
    for task in tasks:
        able = [head for head in heads if head.share(task.name)]
        items, folds = unseen_videos(task, able, caches, config)
        setting, found = Search(task, items, setting_of(task, able), folds).result()
        chosen[task.name] = setting
        results[task.name] = found | {"setting": describe(setting), "videos": len(items)}
        used |= {same[0].id for same in items}
        print("\n".join(lines(task, results[task.name])))
    if is_synthetic(config.labels):
        print("synthetic data (SynthWild): says nothing about real faces")
    write_tuned(config, dict(zip(directories, heads, strict=True)), chosen, sorted(used))
    write_json(config.out / "tuning.json", results)
    return results


def unseen_videos(
    task: Task, heads: Sequence[Head], caches: Sequence[FeatureCache], config: Tune
) -> tuple[list[list[Predicted]], np.ndarray]:
    """What every head predicts for the videos that may choose, `[V][H]`, and the fold `[V]` of each video.

    Raises:
        UserError: There are too few such videos.
    """
    names = ClassMap(config.class_map)
    tracks = labels_to_score(config.labels, task, task.name, "validation", class_map=names, spans=spans_of(caches))
    for line in names.lines():
        print(line)
    ids = scoreable(
        [id for id, track in tracks.items() if track.mask.any()],
        tasks=[task.name],
        encoder=together(*(part for h in heads for part in (h.encoder_trained_on, h.encoder_chosen_on))),
        head={id for head in heads for id in head.trained_on},
        allow_leak=config.allow_leak,
        rule_clean=False,
    )
    counts = label_counts({task.name: {"": {id: tracks[id] for id in ids}}})
    fold_of = {id: n for n, fold in enumerate(grouped_folds(counts, config.folds)) for id in fold}
    items = []
    for id in ids:
        track, same = tracks[id], []
        for head in heads:
            values, read = predict_cached([head], caches, id, len(track), smooth=False)
            rate = frame_rate(read.time_s)
            same.append(Predicted(id, values[task.name], track.labels, track.mask, rate))
        items.append(same)
    return items, np.array([fold_of[id] for id in ids])


def setting_of(task: Task, heads: Sequence[Head]) -> Setting:
    """The post-processing of a task as the heads have it."""
    return Setting(
        tuple(head.share(task.name) for head in heads),
        tuple(head.smoothing.get(task.name, RAW) for head in heads),
        thresholds_of(heads) if task.name == "au" else None,
    )


def describe(setting: Setting) -> dict[str, Any]:
    """A setting as JSON."""
    return {
        "shares": [round(share, 4) for share in setting.shares],
        "smoothing": [vars(smoothing) for smoothing in dict.fromkeys(setting.smoothing)],
        "thresholds": None if setting.thresholds is None else setting.thresholds.round(4).tolist(),
    }


def lines(task: Task, result: Mapping[str, Any]) -> list[str]:
    """The result of one task as text."""

    def gain(part: Mapping[str, Any]) -> str:
        span = (
            "" if part["gain_low"] is None else f" (95 % interval {part['gain_low']:+.4f} to {part['gain_high']:+.4f})"
        )
        return f"{part['score']:.4f}, {part['gain']:+.4f}{span}"

    return [
        f"{task.name:5} {result['as_they_are']['score']:.4f} as the heads are ({result['videos']} sequences)",
        f"      {gain(result['nested'])}: each fold with what the others chose",
        f"      {gain(result['naive'])}: chosen and scored on the same videos, which proves nothing",
        f"      written: {', '.join(result['parts']) or 'nothing new, as no choice was worth it'}",
    ]


def write_tuned(config: Tune, heads: Mapping[Path, Head], chosen: Mapping[str, Setting], used: Sequence[str]) -> None:
    """Write copies of the heads with their settings. A head that no longer counts for any task is left out."""
    able = {name: [n for n, head in enumerate(heads.values()) if head.share(name)] for name in chosen}
    for number, (place, head) in enumerate(heads.items()):
        own = {
            name: (setting.shares[able[name].index(number)], setting.smoothing[able[name].index(number)])
            for name, setting in chosen.items()
            if number in able[name]
        }
        if not any(share for share, _ in own.values()):
            continue
        directory = config.out / f"tuned{number}" / "head"
        tuned = replace(
            head,
            inputs=tuple(replace(item, encoder=moved(item.encoder, place, directory)) for item in head.inputs),
            shares=head.shares | {name: share for name, (share, _) in own.items()},
            smoothing=head.smoothing | {name: smoothing for name, (_, smoothing) in own.items()},
            thresholds=chosen["au"].thresholds if "au" in own else head.thresholds,
            trained_on=sorted({*head.trained_on, *used}),
            record={**head.record, "tuned_on": list(used), "held_out": None, "validation": None, "scored_on": []},
        )
        save_head(tuned, directory, made_by=MADE_BY, config={"folds": config.folds}, parents={})
        write_product_card(directory)
    print(f"heads in {config.out}")
