"""Stage 3: `python temporal/run.py {va,expr,au,joint} RECIPE --features CACHE... --labels ROOT --out RUN`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoints.errors import UserError, guarded
from checkpoints.ranges import check_ranges
from temporal.recipes import TaskName, Temporal, architecture_of, recipes

if TYPE_CHECKING:
    from features.cache import FeatureCache
    from temporal.data import FrameTable
    from temporal.heads import HeadInput
    from temporal.splits import Split
    from wildaffect.tasks.labels import Tracks

MADE_BY = "temporal/run.py"
PATHS = ("features", "labels", "out")  # where things stand is not part of what a run is
TASK_NAMES: tuple[TaskName, ...] = ("va", "expr", "au", "joint")


def main(config: Temporal) -> dict[str, Any]:
    """Train a head (or one per fold and seed), go on where a killed run stopped; returns what `finished.json` says.

    Raises:
        UserError: inputs are missing or do not fit; the run directory holds another run.
    """
    import torch

    from temporal.data import build_table, open_caches
    from temporal.heads import save_head, tasks_of
    from temporal.network import HeadNetwork
    from temporal.selection import Member, conclude, predictions, write_validation
    from temporal.splits import apart
    from temporal.train import check_labels, train_head
    from wildaffect.report.card import write_product_card
    from wildaffect.tasks.leaks import scoreable
    from wildaffect.training.launch import start
    from wildaffect.training.rundir import RunDirectory

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("stage 3 trains in one process: start it with `python`, or one task per device")

    # What to train on.
    check_ranges(config)
    tasks = tasks_of(config.task)
    caches = open_caches(config.features)
    encoder_saw = labels_seen(caches)
    tracks, train, validation = read_labels(config)
    scoreable_ids = scoreable(
        validation,
        tasks={task.name for task in tasks},
        encoder=encoder_saw,
        head=(),
        allow_leak=config.allow_leak,
        rule_clean=config.rule_clean,
    )
    train = apart(train, validation)
    settings = {key: value for key, value in asdict(config).items() if key not in PATHS}
    features = {f"features {number}": cache.feature_id for number, cache in enumerate(caches)}
    parents = features | {"labels": labels_id(tracks)}
    if (Path(config.out) / "finished.json").exists():
        finished = RunDirectory(config.out, made_by=MADE_BY, config=settings, parents=parents).finished or {}
        print(f"{config.out} is finished\n{say(finished)}")
        return finished
    used = {*train, *scoreable_ids}
    table = build_table(
        caches, {name: {id: by_id[id] for id in by_id if id in used} for name, by_id in tracks.items()}, tasks
    )
    splits = choose_splits(config, table, train, scoreable_ids, encoder_saw)
    for split in splits:
        check_labels(table, tasks, split.train)
    with torch.device("meta"):
        HeadNetwork(architecture_of(config), [cache.dim for cache in caches], 1)  # before a folder is made
    run = RunDirectory(config.out, made_by=MADE_BY, config=settings, parents=parents)
    accelerator = start(config.precision)
    table = table.to(accelerator.device)

    # The heads: one, or one per fold and seed.
    members = []
    for fold, split in enumerate(splits):
        for seed in range(config.seeds):
            name = member_name(config, fold, seed)
            home = run
            if name:
                home = RunDirectory(run.path / name, made_by=MADE_BY, config=settings, parents=parents)
            inputs = head_inputs(caches, home.path / "head")
            head = train_head(replace(config, seed=config.seed + seed), table, split, inputs, home, accelerator)
            head.trained_on = sorted({*split.train, *split.tune})
            head.encoder_trained_on = encoder_saw
            held, scored = (predictions(head, table, ids) for ids in (split.tune, split.report))
            members.append(Member(name, head, held, scored))

    # What they choose, score and leave behind.
    synthetic = any(cache.header.get("synthetic", False) for cache in caches)
    summary = conclude(config, members, synthetic)
    for member in members:
        save_head(member.head, run.path / member.name / "head", made_by=MADE_BY, config=settings, parents=features)
        write_product_card(run.path / member.name / "head")
    write_validation(config, run, table, members, summary)
    print(f"{say(summary)}\n{'heads' if members[1:] else 'head'} in {run.path}, report in {run.path / 'report.html'}")
    run.finish(summary)
    return summary


def read_labels(config: Temporal) -> tuple[dict[str, Tracks], list[str], list[str]]:
    """Annotations by task, ids of the training split, ids of the validation split.

    Raises:
        UserError: when the training split has none.
    """
    from temporal.heads import tasks_of
    from wildaffect.tasks.labels import TRAIN, VALIDATION, read_annotations

    by_split = {
        split: {task.name: read_annotations(config.labels, task, split) for task in tasks_of(config.task)}
        for split in (TRAIN, VALIDATION)
    }
    ids = {split: sorted({id for by_id in by_task.values() for id in by_id}) for split, by_task in by_split.items()}
    if not ids[TRAIN]:
        raise UserError(
            f"{config.labels} holds no {config.task} annotations of a training split: expected the release root, its "
            "'... ABAW Annotations' folder, the task's folder with Train_Set and Validation_Set, an MTL folder, a table"
        )
    # In the releases' splits an id may validate one task and train another: what validates anything trains nothing.
    validation = set(ids[VALIDATION])
    labels = {
        name: {id: track for id, track in by_split[TRAIN][name].items() if id not in validation}
        | by_split[VALIDATION][name]
        for name in by_split[TRAIN]
    }
    return labels, sorted(set(ids[TRAIN]) - validation), ids[VALIDATION]


def choose_splits(
    config: Temporal, table: FrameTable, train: list[str], validation: list[str], encoder_saw: dict[str, list[str]]
) -> list[Split]:
    """Who teaches, chooses and is scored: with `tune_on="validation"` the validation videos choose and none is scored.

    Raises:
        UserError: when there are too few videos for it.
    """
    from temporal.splits import Split, make_splits
    from wildaffect.tasks.folds import release_folds

    if config.tune_on == "validation":
        if not validation:
            raise UserError(f"--tune-on validation: {config.labels} has no {config.task} validation split to choose on")
        if config.folds:
            raise UserError("--folds choose on the fold that each head leaves out: not with --tune-on validation")
        return [Split(train, validation, [])]
    return make_splits(
        {id: table.spans[i][1] for id, i in zip(train, table.select(train), strict=True)},
        validation,
        folds=release_folds(config.labels, config.folds, config.seed) if config.folds else [],
        share=config.hold_out,
        seed=config.seed,
        seen={id for ids in encoder_saw.values() for id in ids},
    )


def labels_seen(caches: Sequence[FeatureCache]) -> dict[str, list[str]]:
    """Task name -> ids whose labels any of the encoders was trained on."""
    tasks = sorted({task for cache in caches for task, ids in cache.trained_on.items() if ids})
    return {task: sorted({id for cache in caches for id in cache.trained_on.get(task, [])}) for task in tasks}


def labels_id(tracks: dict[str, Tracks]) -> str:
    """Hash of all labels read: another edition of the annotations makes another run."""
    import hashlib

    digest = hashlib.sha256()
    for task, by_id in sorted(tracks.items()):
        for id, track in sorted(by_id.items()):
            digest.update(f"{task}\0{id}\0{len(track)}\n".encode() + track.labels.tobytes())
    return digest.hexdigest()


def member_name(config: Temporal, fold: int, seed: int) -> str:
    """Folder of one of several heads; empty for a single one, which lies in the run itself."""
    parts = [f"fold{fold}"] if config.folds else []
    return "-".join(parts + ([f"seed{config.seed + seed}"] if config.seeds > 1 else []))


def head_inputs(caches: Sequence[FeatureCache], head: Path) -> tuple[HeadInput, ...]:
    """Record of the caches, with their encoders' places relative to the head's directory."""
    from temporal.heads import HeadInput

    inputs = []
    for cache in caches:
        encoder = str(cache.header.get("encoder", ""))
        if encoder and not encoder.startswith("timm:"):
            encoder = os.path.relpath(cache.path / encoder, head)
        how = {key: cache.header["config"][key] for key in ("view", "flip", "pooling") if key in cache.header["config"]}
        inputs.append(HeadInput(cache.feature_id, cache.dim, encoder, **how))
    return tuple(inputs)


def say(summary: dict[str, Any]) -> str:
    """Scores for people."""
    from temporal.scoring import describe

    lines = []
    for part in ("held_out", "validation"):
        if summary[part]:
            tasks = {name: summary[part][name] for name in ("va", "expr", "au") if name in summary[part]}
            lines.append(f"{part.replace('_', ' ')}:\n{describe(tasks)}")
    return "\n".join(lines)


def command_line(arguments: Sequence[str] | None = None) -> None:
    """Parse `TASK RECIPE --options` and train."""
    import tyro

    arguments = list(sys.argv[1:] if arguments is None else arguments)
    task: TaskName | None = next((name for name in TASK_NAMES if arguments[:1] == [name]), None)
    if task is None:
        known = "".join(f"\n  {name:18} {text}" for name, (text, _) in recipes("va").items())
        usage = (
            f"{__doc__}\n\nTasks: {', '.join(TASK_NAMES)}\nRecipes:{known}\n\n"
            "`temporal/run.py TASK RECIPE --help` lists the options with that recipe's values."
        )
        if arguments[:1] in (["-h"], ["--help"]):
            print(usage)
            return
        raise UserError(f"expected a task first ({', '.join(TASK_NAMES)}), then a recipe; --help lists them")
    main(
        tyro.extras.overridable_config_cli(
            recipes(task), description=__doc__, prog=f"temporal/run.py {task}", args=arguments[1:]
        )
    )


if __name__ == "__main__":
    guarded(command_line)
