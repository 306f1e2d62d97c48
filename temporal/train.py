"""Stage 3 from its inputs to its result: reads caches and labels, trains the heads, scores them and writes the run."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import torch
from accelerate import Accelerator

from checkpoints.errors import UserError
from checkpoints.forms import checked
from checkpoints.lock import sole_writer
from checkpoints.ranges import check_ranges
from checkpoints.tensors import load_tensors, save_tensors
from temporal.caches import head_inputs, open_caches
from temporal.data import FrameTable, build_table, with_a_face
from temporal.heads import Head, HeadInput, Scores, tasks_of
from temporal.labels import labels_id, labels_seen, read_labels, spans_of
from temporal.network import HeadNetwork
from temporal.predict import ByTask, predict_labelled, predict_spans
from temporal.recipes import APART, Temporal, architecture_of
from temporal.results import write_heads, write_predictions_and_report
from temporal.scoring import describe_run
from temporal.selection import Member, choose_and_score, member_name
from temporal.smoothing import score
from temporal.splits import Split, apart, choose_splits
from temporal.table_facts import annotated, check_labels, feature_moments
from temporal.windows import Windows
from wildaffect.tasks import EXPR, Task
from wildaffect.tasks.folds import without
from wildaffect.tasks.leaks import refuse_other_tasks, scoreable, together
from wildaffect.tasks.priors import Prior, tempered
from wildaffect.training.averaging import moving_average
from wildaffect.training.batches import BatchPlan, sample_rng
from wildaffect.training.launch import start, track
from wildaffect.training.loop import Loop
from wildaffect.training.meter import describe_cost
from wildaffect.training.rundir import RunDirectory
from wildaffect.training.schedule import warmup_cosine, weight_groups

MADE_BY = "temporal/run.py"


class Summary(TypedDict):
    """What is read of the summary of a finished run."""

    held_out: Scores | None
    validation: Scores | None


@sole_writer
def train(config: Temporal) -> dict[str, Any]:
    """Train a head, or one per fold and seed. A run that was killed resumes where it stopped.

    Returns:
        What `finished.json` holds.

    Raises:
        UserError: inputs are missing or do not fit together, or the directory holds another run.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("stage 3 trains in one process: start it with `python`, or start one task per device")
    check_ranges(config)

    # What the head is trained on: caches, labels, and which videos train it, tune it and score it.
    tasks = tasks_of(config.task)
    caches = open_caches(config.features)
    encoder_saw, encoder_chosen_on = labels_seen(caches, rule_clean=config.rule_clean)
    tracks, train, validation = read_labels(config, caches)
    chooses = config.tune_on == "validation"
    names, seen = {task.name for task in tasks}, together(encoder_saw, encoder_chosen_on)
    if config.rule_clean:
        refuse_other_tasks(names, seen)
    if chooses:  # what chose the encoder may choose again, but is not scored
        seen = encoder_saw
    reported = scoreable(
        validation,
        tasks=names,
        encoder=seen,
        head=(),
        allow_leak=config.allow_leak,
        rule_clean=config.rule_clean,
        required=chooses,
    )
    leaked = len(reported) - len(without(reported, {id for ids in seen.values() for id in ids}))
    train = apart(train, validation)

    # The run directory, unless the run is finished already.
    settings = {key: value for key, value in asdict(config).items() if key not in APART}
    features = {f"features {number}": cache.feature_id for number, cache in enumerate(caches)}
    parents = features | {"labels": labels_id(tracks)}
    if (Path(config.out) / "finished.json").exists():
        finished = RunDirectory(config.out, made_by=MADE_BY, config=settings, parents=parents).finished or {}
        finished_scores = checked(finished, Summary, Path(config.out) / "finished.json")
        print(f"{config.out} is finished\n{describe_run(finished_scores)}")
        return finished
    used = {*train, *reported}
    table = build_table(
        caches, {name: {id: by_id[id] for id in by_id if id in used} for name, by_id in tracks.items()}, tasks
    )
    splits = choose_splits(config, table, with_a_face(table, train), reported, encoder_saw, spans_of(caches))
    for split in splits:
        check_labels(table, tasks, split.train)
    with torch.device("meta"):  # refuses a wrong architecture before a folder is made
        HeadNetwork(architecture_of(config), [cache.dim for cache in caches], 1)
    run = RunDirectory(config.out, made_by=MADE_BY, config=settings, parents=parents)
    accelerator = start(config.precision, config.tracker, config.out)
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
            head.encoder_trained_on, head.encoder_chosen_on = encoder_saw, encoder_chosen_on
            held_out, scored = (predict_labelled(head, table, ids) for ids in (split.tune, split.report))
            members.append(Member(name, head, held_out, scored))

    # Smoothing and thresholds are chosen, the heads are scored, and everything is written.
    synthetic = any(cache.header.get("synthetic", False) for cache in caches)
    summary = choose_and_score(config, members, synthetic, leaked)
    write_heads(run, members, made_by=MADE_BY, config=settings, parents=features)
    write_predictions_and_report(config, run, table, members, summary)
    print(
        f"{describe_run(summary)}\n{'heads' if members[1:] else 'head'} in {run.path}, report in "
        f"{run.path / 'report.html'}"
    )
    run.finish(summary)
    return summary


def train_head(
    config: Temporal,
    table: FrameTable,
    split: Split,
    inputs: tuple[HeadInput, ...],
    run: RunDirectory,
    accelerator: Accelerator,
) -> Head:
    """Train a head, or resume training it. The table holds the whole split and is on the accelerator's device.

    Returns:
        The head in the state with the best official score on the `tune` videos. Smoothing and thresholds are not
        chosen yet.

    Raises:
        UserError: nothing is annotated.
    """
    track(accelerator, run, asdict(config))
    tasks = tasks_of(config.task)
    spans = [table.spans[i] for i in table.select(split.train)]
    torch.manual_seed(config.seed)
    network = HeadNetwork(architecture_of(config), [item.dim for item in inputs], sum(task.out_dim for task in tasks))
    if config.normalise:
        network.mean, network.std = feature_moments(table, spans, network.dims)
    network.to(accelerator.device)
    head = Head(network, tasks, architecture_of(config), inputs, config.recipe, withheld=config.withheld)
    ema = moving_average(network, config.ema, pretrained=False)

    windows = Windows.cover(spans, config.window, config.stride, config.readout == "last")
    windows = windows[annotated(windows, table)]
    plan = BatchPlan.derive(
        count=len(windows),
        batch_size=min(config.batch_size, len(windows)),
        most=config.batch_size,
        rank=0,
        world=1,
        seed=config.seed,
    )
    steps = plan.steps(config.epochs)
    warmup = round(config.warmup * steps)
    optimizer = torch.optim.AdamW(weight_groups(network, config.weight_decay), lr=config.lr)
    loop = Loop(
        run=run,
        accelerator=accelerator,
        model=network,
        optimizer=optimizer,
        steps=steps,
        batch_size=plan.batch_size,
        lr_at=lambda step: warmup_cosine(step, total=steps, warmup=warmup, peak=config.lr),
        seed=config.seed,
        clip_grad=config.clip_grad,
        log_every=config.log_every,
        save_every=config.save_every,
        ema=ema,
        facts={"best": -2.0, "best_step": 0, "worse": 0},
    )
    accelerator.print(
        f"{config.task} {config.recipe}: {len(split.train)} sequences, {sum(n for _, n in spans):,} frames, "
        f"{len(windows):,} windows of {config.window}; {len(split.tune)} held out; {steps:,} steps of {plan.batch_size}"
        f"; lr {config.lr:.1e} after {warmup} steps; {describe_cost(network)}"
    )
    first = loop.resume()
    loop.steps = loop.facts.get("stopped", steps)
    evaluated = network if ema is None else cast(HeadNetwork, ema.module)
    choices = {task.name: loss_choices(task, config, table, split.train) for task in tasks}
    every = -(-steps // config.evaluations)

    def loss_of(model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        rows = batch["rows"]
        outputs = model(*table.inputs(rows), batch["inside"]).float()
        losses = []
        for task, (name, part) in zip(tasks, head.split(outputs).items(), strict=True):
            labels, mask = table.targets(name, rows)
            losses.append(task.loss(part, labels, mask & batch["predicted"][..., None], **choices[name]))
        return torch.stack(losses).sum()

    def after_step(step: int) -> None:
        if step % every and step != loop.steps:
            return
        reached = official_score(head, predict_labelled(head, table, split.tune, evaluated))
        run.log({"step": step, "held_out": reached})
        if reached > loop.facts["best"]:
            loop.facts.update(best=reached, best_step=step, worse=0)
            save_tensors(run.state / "best.safetensors", evaluated.state_dict())
        else:
            loop.facts["worse"] += 1
        if config.patience and loop.facts["worse"] >= config.patience:
            loop.facts["stopped"] = loop.steps = step

    loop.train(batches(windows, plan, first, config), loss_of, after_step)
    network.load_state_dict(load_tensors(run.state / "best.safetensors"))
    network.eval()
    if EXPR in tasks:
        head.prior = measure_prior(head, table, split.train, config)
    head.record |= {"best_step": loop.facts["best_step"], "steps": loop.step, "seed": config.seed}
    return head


def batches(windows: Windows, plan: BatchPlan, first: int, config: Temporal) -> Iterator[dict[str, torch.Tensor]]:
    """The windows of each step from step `first`: `rows` of the table, `inside` and `predicted`, each `[B, window]`."""
    step = first
    while True:
        pairs = plan.global_batch(step)
        chosen = windows[np.array([index for _, index in pairs])]
        if config.jitter:
            reach = config.stride // 2
            offsets = [sample_rng(config.seed, *pair).integers(-reach, reach + 1) for pair in pairs]
            chosen = chosen.shifted(np.array(offsets))
        rows, inside = chosen.rows()
        arrays = {"rows": rows, "inside": inside, "predicted": chosen.predicted()}
        yield {name: torch.from_numpy(array) for name, array in arrays.items()}
        step += 1


def loss_choices(task: Task, config: Temporal, table: FrameTable, train: Sequence[str]) -> dict[str, Any]:
    """Keyword arguments of the task's loss, with weights from the training labels."""
    if task.name == "va":
        return {"ccc_over": config.ccc_over, "mse": config.mse}
    choices: dict[str, Any] = {"focal": config.focal}
    rows = torch.cat([torch.arange(a, a + n) for a, n in (table.spans[i] for i in table.select(train))])
    labels, mask = table.labels[task.name].cpu()[rows], table.mask[task.name].cpu()[rows]
    device = table.valid.device  # where the network is; features may not fit there
    if task.name == "expr" and config.class_weights != "none":
        counts = torch.bincount(labels[mask].long(), minlength=task.out_dim).float()
        share = counts / counts.sum()
        weights = 1 - share if config.class_weights == "complement" else share.clamp_min(1e-3).rsqrt()
        if config.class_weights == "balanced":
            weights = weights / (weights * share).sum()  # mean 1 over the frames, so that lr means the same
        choices["class_weights"] = weights.to(device)
    if task.name == "au" and config.pos_weight == "balanced":
        positive = ((labels > 0.5) & mask).sum(0).float()
        negative = mask.sum(0) - positive
        choices["pos_weight"] = (negative / positive.clamp_min(1)).clamp(0.25, 25).sqrt().to(device)
    return choices


def measure_prior(head: Head, table: FrameTable, train: Sequence[str], config: Temporal) -> Prior:
    """What the head was trained with: shares of the classes as the loss weighs them, and how it sees neutral faces."""
    rows = torch.cat([torch.arange(a, a + n) for a, n in (table.spans[i] for i in table.select(train))])
    targets, mask = (item[:, 0].cpu() for item in table.targets(EXPR.name, rows[:, None]))
    targets, seen = targets[mask[:, 0]], rows[mask[:, 0]]
    if targets.shape[1] == 1:
        targets = torch.from_numpy(EXPR.targets(targets.numpy()))
    shares = targets.mean(dim=0)
    weights = loss_choices(EXPR, config, table, train).get("class_weights")
    shares = shares if weights is None else shares * weights.cpu()
    trained = (shares / shares.sum()).double().numpy()
    values = predict_spans(
        head.network, table.features, table.valid, [table.spans[i] for i in table.select(train)], head
    )
    neutral = values[EXPR.name][seen[targets.argmax(dim=1) == EXPR.columns.index("Neutral")]]
    # Without a neutral face there is nothing to be at rest: uniform.
    rest = neutral.clamp_min(1e-12).log().mean(dim=0) if len(neutral) else torch.full((EXPR.out_dim,), -math.log(8))
    stated = tempered(trained, config.temper_prior) if config.temper_prior else trained
    return Prior(tuple(trained.tolist()), tuple(stated.tolist()), tuple(rest.tolist()))


def official_score(head: Head, items: ByTask) -> float:
    """Official score of raw predictions over whole sequences; for several tasks the sum of their scores."""
    return sum(score(task, items[task.name])["score"] for task in head.tasks)
