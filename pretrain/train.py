"""Stage 1 from its inputs to its result: opens the stores, trains the masked autoencoder and writes the run."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import torch

from checkpoints.errors import UserError
from checkpoints.forms import checked
from checkpoints.lock import sole_writer
from checkpoints.ranges import check_ranges
from preprocessing.views import face_views
from pretrain.build import build, build_optimizer, parent_fingerprints, write_result
from pretrain.mixture import FacesMixture, as_text
from pretrain.monitor import Monitor
from pretrain.recipes import Pretrain
from pretrain.run_report import write_report
from pretrain.streaming import StreamedCrops, StreamedMixture, is_address
from wildaffect.training.batches import BatchPlan
from wildaffect.training.images import CropDataset, RandomCrop, work_ahead
from wildaffect.training.launch import chosen_precision, start, track
from wildaffect.training.loop import Loop
from wildaffect.training.meter import count_flops, describe_cost
from wildaffect.training.rundir import RunDirectory
from wildaffect.training.schedule import warmup_cosine

MADE_BY = "pretrain/run.py"
# Where things are stored and which tracker listens do not define a run.
APART = ("faces", "out", "init", "exclude", "probe_faces", "probe_labels", "tracker")


class Summary(TypedDict):
    """What is read of the summary of a finished run."""

    loss: float


@sole_writer
def train(config: Pretrain) -> dict[str, Any]:
    """Train from scratch, from `config.init`, or from the state of an interrupted run; returns `finished.json`.

    Raises:
        UserError: Inputs are missing or do not fit together; the run directory holds another run.
    """
    # The stores, and how batches are divided among processes.
    check_ranges(config)
    accelerator = start(config.precision, config.tracker, config.out)
    # The first process caches its results in the stores; where nodes have copies of them, the first on each node.
    with accelerator.main_process_first(), accelerator.local_main_process_first():
        faces = open_faces(config)
    plan = BatchPlan.derive(
        count=len(faces),
        batch_size=config.batch_size,
        most=config.micro_batch_size,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        seed=config.seed,
    )
    steps = config.steps or plan.steps(config.epochs)
    warmup = max(1, round(config.warmup * steps))
    run = RunDirectory(
        config.out,
        made_by=MADE_BY,
        config={key: value for key, value in asdict(config).items() if key not in APART}
        | {"steps": steps, "arithmetic": chosen_precision(accelerator)},
        parents=faces.fingerprints | parent_fingerprints(config.init),
        main=accelerator.is_main_process,
    )
    accelerator.wait_for_everyone()
    if done := run.finished:
        loss = checked(done, Summary, run.path / "finished.json")["loss"]
        accelerator.print(f"{config.out} is finished: loss {loss:.4f} after {steps} steps")
        return done
    track(accelerator, run, asdict(config))

    # The network and its optimizer.
    torch.manual_seed(config.seed)
    model = build(config).to(accelerator.device)
    optimizer = build_optimizer(model, lr=config.lr, weight_decay=config.weight_decay)
    size = config.image_size
    picture = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=accelerator.device)
    flops = count_flops(model, picture, torch.zeros(1, model.num_patches, device=accelerator.device))
    epochs = steps * config.batch_size / len(faces)
    statistics = faces.statistics(epochs)
    accelerator.print(
        f"{len(faces):,} pictures in {len(statistics)} store(s):\n{as_text(statistics)}\n"
        f"{steps:,} steps of {config.batch_size} ({accelerator.num_processes} process(es) x {plan.accumulation} x "
        f"{plan.micro_batch_size}) = {epochs:.1f} epochs; lr {config.lr:.1e} after {warmup} steps; "
        f"{describe_cost(model, flops, steps * config.batch_size)}"
    )

    # The loop.
    loop = Loop(
        run=run,
        accelerator=accelerator,
        model=model,
        optimizer=optimizer,
        steps=steps,
        batch_size=config.batch_size,
        accumulation=plan.accumulation,
        lr_at=lambda step: warmup_cosine(step, total=steps, warmup=warmup, peak=config.lr),
        seed=config.seed,
        clip_grad=config.clip_grad,
        log_every=config.log_every,
        save_every=config.save_every,
        flops=flops,
        compile=config.compile,
    )
    monitor = Monitor(run, model, faces, config, steps)
    first = loop.resume()
    loop.train(
        batches(config, faces, plan, first, steps, model.num_patches),
        lambda network, batch: network(batch["images"], batch["noise"]).loss,
        (lambda step: monitor.after_step(step, loop.facts)) if accelerator.is_main_process else None,
    )

    # The result.
    summary: dict[str, Any] = {"steps": steps, "pictures_seen": steps * config.batch_size, "stores": statistics}
    summary["bad_pictures"] = loop.facts.get("bad_pictures", 0)
    if accelerator.is_main_process:
        summary["loss"] = loop.facts["loss"]
        summary |= monitor.best(loop.facts)
        write_result(run, model, faces, config, summary["pictures_seen"])
        write_report(run, model, faces, summary)
        accelerator.print(f"encoder in {Path(config.out) / 'encoder'}, pictures in {Path(config.out) / 'report.html'}")
    run.finish(summary)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return summary


def open_faces(config: Pretrain) -> FacesMixture | StreamedMixture:
    """Open the stores to train on; if one of them is given by address, all are streamed.

    Raises:
        UserError: A store cannot be read.
    """
    if not config.faces:
        raise UserError("--faces names no store")
    if any(map(is_address, config.faces)):
        return StreamedMixture(config.faces, config.weights, config.exclude)
    return FacesMixture([Path(path) for path in config.faces], config.weights, config.exclude, config.seed)


def batches(
    config: Pretrain, faces: FacesMixture | StreamedMixture, plan: BatchPlan, first: int, last: int, patches: int
) -> Iterable[Any]:
    """This process's micro-batches of steps `first` to `last`: `images` uint8 `[B, 3, S, S]`, `noise` `[B, L]`."""
    crop = RandomCrop(config.image_size, config.crop_scale, config.crops)
    if isinstance(faces, StreamedMixture):
        crops = StreamedCrops(faces, plan, first, last, crop=crop, patches=patches)
        # Forked workers could deadlock on locks that Arrow's threads hold.
        return work_ahead(crops, faces.workers(config.workers, plan.world), start="spawn")
    dataset = CropDataset(
        count=len(faces),
        picture=lambda index: face_views(faces.jpeg(index))[0],
        name=faces.name,
        crop=crop,
        seed=config.seed,
        pick=faces.pick,
        extras=lambda rng, _index: {"noise": rng.random(patches, dtype="float32")},
    )
    return work_ahead(dataset, config.workers, plan.micro_batches(first, last))
