"""Stage 1: `accelerate launch pretrain/run.py RECIPE --faces STORE... --out RUN`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from checkpoints.errors import guarded
from pretrain.recipes import RECIPES, Pretrain

MADE_BY = "pretrain/run.py"
APART = ("faces", "out", "init", "tracker")  # where things stand and who watches is not part of what a run is


def main(config: Pretrain) -> dict[str, Any]:
    """Train, from nothing, from `config.init` or from where a killed run stopped; returns what `finished.json` says.

    Raises:
        UserError: Inputs are missing or do not fit; the run directory holds another run.
    """
    import torch

    from pretrain.faces_mixture import FacesMixture
    from pretrain.pictures import write_report
    from pretrain.product import build, count_flops, fingerprints, write_product
    from training.batches import BatchPlan
    from training.images import CropDataset, crop_batches
    from training.launch import start, track
    from training.loop import Loop
    from training.rundir import RunDirectory
    from training.schedule import warmup_cosine

    # What to train on, and with how many.
    accelerator = start(config.precision, config.tracker, config.out)
    faces = FacesMixture(config.faces)
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
        config={key: value for key, value in asdict(config).items() if key not in APART} | {"steps": steps},
        parents=faces.fingerprints | fingerprints(config.init),
        main=accelerator.is_main_process,
    )
    accelerator.wait_for_everyone()
    if run.finished:
        accelerator.print(f"{config.out} is finished: loss {run.finished['loss']:.4f} after {steps} steps")
        return run.finished
    track(accelerator, run, asdict(config))

    # The network and its optimizer.
    torch.manual_seed(config.seed)
    model = build(config).to(accelerator.device)
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=config.lr,
        betas=(0.9, 0.95),
        fused=accelerator.device.type == "cuda",
    )
    flops = count_flops(model)
    accelerator.print(
        f"{len(faces):,} pictures of {len(faces.stores)} store(s); {steps:,} steps of {config.batch_size} "
        f"({accelerator.num_processes} process(es) x {plan.accumulation} x {plan.micro_batch_size}) = "
        f"{steps * config.batch_size / len(faces):.1f} epochs; lr {config.lr:.1e} after {warmup} steps; "
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M weights; "
        f"{3 * flops * steps * config.batch_size / 1e15:.2f} PFLOP in all"
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
        identify=lambda step: [faces.name(index) for _, index in plan.share(step)],
    )
    first = loop.resume()
    dataset = CropDataset(
        count=len(faces),
        jpeg=faces.jpeg,
        name=faces.name,
        size=config.image_size,
        scale=config.crop_scale,
        seed=config.seed,
        extras=lambda rng, _index: {"noise": rng.random(model.num_patches, dtype="float32")},
    )
    loop.train(
        crop_batches(dataset, plan, first, steps, config.workers),
        lambda network, batch: network(batch["images"], batch["noise"]).loss,
    )

    # The product.
    loss = run.metrics()[-1]["loss"] if accelerator.is_main_process else 0.0
    summary = {"loss": loss, "steps": steps, "pictures_seen": steps * config.batch_size}
    if accelerator.is_main_process:
        write_product(run, model, faces, config, summary)
        write_report(run, model, faces, summary)
        accelerator.print(f"encoder in {Path(config.out) / 'encoder'}, pictures in {Path(config.out) / 'report.html'}")
    run.finish(summary)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return summary


def command_line() -> None:
    """Parse the command line and train."""
    import tyro

    main(tyro.extras.overridable_config_cli(RECIPES, description=__doc__))


if __name__ == "__main__":
    guarded(command_line)
