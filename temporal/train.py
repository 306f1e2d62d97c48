"""Training one head on a table of labelled features, with the held-out videos that choose what training cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from checkpoints.encoder import load_tensors, save_tensors
from checkpoints.errors import UserError
from temporal.data import FrameTable
from temporal.heads import Head, HeadInput, tasks_of
from temporal.network import HeadNetwork
from temporal.recipes import Temporal, architecture_of
from temporal.selection import ByTask, predictions
from temporal.smoothing import score
from temporal.splits import Split
from temporal.windows import Windows
from wildaffect.tasks import Task
from wildaffect.training.batches import BatchPlan, sample_rng
from wildaffect.training.loop import Loop
from wildaffect.training.rundir import RunDirectory
from wildaffect.training.schedule import warmup_cosine

if TYPE_CHECKING:
    from accelerate import Accelerator


class MovingAverage(AveragedModel):
    """Exponential moving average of a network's weights, as `wildaffect.training.loop.Loop` updates it.

    Args:
        network: whose weights.
        decay: share of the old average kept at each step.
    """

    def __init__(self, network: torch.nn.Module, decay: float) -> None:
        super().__init__(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=False)

    def update(self, network: torch.nn.Module) -> None:
        """Take one step's weights in; buffers (batch statistics) are the newest."""
        self.update_parameters(network)


def train_head(
    config: Temporal,
    table: FrameTable,
    split: Split,
    inputs: tuple[HeadInput, ...],
    run: RunDirectory,
    accelerator: Accelerator,
) -> Head:
    """Train a head, or go on with one.

    Args:
        config: the resolved recipe.
        table: features and labels of all sequences of the split, on the accelerator's device.
        split: which of them teach, choose and are scored.
        inputs: the caches, for the record.
        run: where states and records go.
        accelerator: device and precision; one process.

    Returns:
        The head in its best state by the official metric on the whole `tune` videos; smoothing and thresholds are
        still to be chosen.

    Raises:
        UserError: when nothing is annotated.
    """
    tasks = tasks_of(config.task)
    spans = [table.spans[i] for i in table.select(split.train)]
    torch.manual_seed(config.seed)
    network = HeadNetwork(architecture_of(config), [item.dim for item in inputs], sum(task.out_dim for task in tasks))
    if config.normalise:
        network.mean, network.std = feature_moments(table, spans, network.dims)
    network.to(accelerator.device)
    head = Head(network, tasks, architecture_of(config), inputs, config.recipe)
    ema = MovingAverage(network, config.ema) if config.ema else None

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
        f"; lr {config.lr:.1e} after {warmup} steps; {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M weights"
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
        reached = official_score(head, predictions(head, table, split.tune, evaluated))
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
    head.record |= {"best_step": loop.facts["best_step"], "steps": loop.step, "seed": config.seed}
    return head


def batches(windows: Windows, plan: BatchPlan, first: int, config: Temporal) -> Iterator[dict[str, torch.Tensor]]:
    """Windows of each step, from step `first` on: `rows` of the table, `inside`, `predicted`, each `[B, window]`."""
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


def annotated(windows: Windows, table: FrameTable) -> np.ndarray:
    """Numbers of the windows with at least one label among the frames they predict."""
    any_label = torch.stack([mask.any(dim=1) for mask in table.mask.values()]).any(dim=0).cpu().numpy()
    keep = []
    for start in range(0, len(windows), 4096):  # in parts: windows ending at every frame are many
        part = windows[start : start + 4096]
        keep.append(start + np.flatnonzero((any_label[part.rows()[0]] & part.predicted()).any(axis=1)))
    return np.concatenate(keep)


def check_labels(table: FrameTable, tasks: Sequence[Task], train: Sequence[str]) -> None:
    """Refuse labels that cannot teach.

    Raises:
        UserError: when a task has no annotated frame among the training videos, or all of them the same label.
    """
    for task in tasks:
        rows = torch.cat([torch.arange(a, a + n) for a, n in (table.spans[i] for i in table.select(train))])
        labels, mask = table.labels[task.name].cpu()[rows], table.mask[task.name].cpu()[rows]
        if not mask.any():
            raise UserError(
                f"none of the {len(train)} training sequences has an annotated {task.name} frame (all lines are "
                f"marked {task.marker}): check --labels"
            )
        kinds = [labels[mask[:, column], column].unique() for column in range(task.label_width)]
        if all(len(values) < 2 for values in kinds):
            which = f" ({task.columns[int(kinds[0])]})" if task.name == "expr" else ""
            raise UserError(
                f"all annotated training frames carry the same {task.name} label{which}: nothing to tell apart"
            )
        shown = zip(task.kinds, task.strata(labels.numpy(), mask.numpy()), strict=True)
        if absent := [kind for kind, frames in shown if not frames]:
            print(f"note: no annotated training frame shows {', '.join(absent)}: a head cannot learn it from these")


def feature_moments(
    table: FrameTable, spans: Sequence[tuple[int, int]], dims: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation `[D]` of some spans' frames, each cache over its own valid ones.

    Args:
        table: features of caches of widths `dims` side by side.
        spans: (first row, length) of each sequence; taken one at a time, in float64.
        dims: those widths.
    """
    device = table.features.device
    total = torch.zeros(2, sum(dims), dtype=torch.float64, device=device)
    count = torch.zeros(sum(dims), dtype=torch.float64, device=device)
    widths = torch.tensor(dims, device=device)
    for start, length in spans:
        valid = table.valid[start : start + length].to(device)
        frames = table.features[start : start + length].double() * valid.repeat_interleave(widths, dim=1)
        total += torch.stack([frames.sum(0), frames.square().sum(0)])
        count += valid.sum(0).repeat_interleave(widths)
    mean = total[0] / count.clamp_min(1)
    deviation = (total[1] / count.clamp_min(1) - mean.square()).clamp_min(0).sqrt()
    return mean.float(), torch.where(deviation > 1e-5, deviation, 1.0).float()


def weight_groups(network: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: matrices decay, vectors do not."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def loss_choices(task: Task, config: Temporal, table: FrameTable, train: Sequence[str]) -> dict[str, Any]:
    """Keyword arguments of the task's loss, with weights from the training labels."""
    if task.name == "va":
        return {"ccc_over": config.ccc_over, "mse": config.mse, "mae": config.mae}
    choices: dict[str, Any] = {"focal": config.focal, "label_smoothing": config.label_smoothing}
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


def official_score(head: Head, items: ByTask) -> float:
    """Official score of raw predictions over whole sequences; the sum of several tasks' scores."""
    return sum(score(task, items[task.name])["score"] for task in head.tasks)
