"""Stage 2 from top to bottom: what is trained on, the network, the loop, the product."""

from dataclasses import asdict
from typing import Any, TypedDict

import torch
from timm.models.vision_transformer import VisionTransformer

from checkpoints.encoder import load_encoder
from checkpoints.errors import UserError
from checkpoints.forms import checked
from checkpoints.lock import sole_writer
from checkpoints.ranges import check_ranges
from finetune.augment import picture_augmentation
from finetune.classifier import Classifier, build_optimizer, trainable
from finetune.finish import finish
from finetune.frames import EpochDraw, combined, training_frames
from finetune.labels import read_split, read_units
from finetune.objective import Objective
from finetune.recipes import Finetune
from finetune.scoring import Scorer
from finetune.validation import BEST, BestWeights, Validation
from preprocessing.faces import FacesStore
from preprocessing.views import StillFrames, check_views, describe_input
from wildaffect.training import schedule
from wildaffect.training.averaging import moving_average
from wildaffect.training.batches import BatchPlan
from wildaffect.training.images import RandomCrop, work_ahead
from wildaffect.training.launch import chosen_precision, start, track
from wildaffect.training.loop import Loop
from wildaffect.training.meter import count_flops, describe_cost
from wildaffect.training.rundir import RunDirectory

MADE_BY = "finetune/run.py"
# Paths and trackers are not part of what a run is.
APART = ("faces", "labels", "au_faces", "au_labels", "encoder", "out", "class_map", "exclude", "tracker")


class Summary(TypedDict):
    """What is read of the summary of a finished run."""

    macro_f1: float


@sole_writer
def train(config: Finetune) -> dict[str, Any]:
    """Fine-tune, from the parent encoder or from where a killed run stopped; returns what `finished.json` says.

    Raises:
        UserError: Inputs are missing or do not fit; the run directory holds another run.
    """
    # What to train and validate on, and from what.
    check_ranges(config)
    if (config.au_faces is None) != (config.au_labels is None):
        raise UserError("--au-faces and --au-labels belong together: pass both or neither")
    accelerator = start(config.precision, config.tracker, config.out)
    # The first process hashes the stores and remembers it; where nodes have copies of them, the first on each node.
    with accelerator.main_process_first(), accelerator.local_main_process_first():
        stores = [FacesStore(path) for path in (config.faces, config.au_faces) if path is not None]
    store = stores[0]
    parent = load_encoder(config.encoder)
    split = read_split(store, config.labels, class_map=config.class_map, seed=config.seed, exclude=config.exclude)
    frames = split.train
    expressions = draw = EpochDraw(frames, config.frames_per_video, config.seed)
    if config.au_labels is not None:
        units = read_units(stores[1], config.au_labels, split.notes)
        frames = combined(split.train, units, len(store))
        split.units = units.ids
        draw = EpochDraw(frames, config.frames_per_video, config.seed)
    split.synthetic = [task for task, one in zip(("expr", "au"), stores, strict=False) if one.header.get("synthetic")]
    plan = BatchPlan.derive(
        count=draw.count,
        batch_size=config.batch_size,
        most=config.micro_batch_size,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        seed=config.seed,
    )
    steps = plan.steps(config.epochs)
    warmup = round(config.warmup * steps)
    for each in stores:
        check_views(each, [config.view])
    text = describe_input(parent, config.encoder, store.image_size)
    if not isinstance(parent.backbone, VisionTransformer):
        text += "\nnote: not a plain Vision Transformer: it keeps its own pooling, and --patch-drop has no effect"
    run = RunDirectory(
        config.out,
        made_by=MADE_BY,
        config={key: value for key, value in asdict(config).items() if key not in APART}
        | {"steps": steps, "classes": split.class_map, "arithmetic": chosen_precision(accelerator)},
        parents={"faces": store.fingerprint, "encoder": parent.fingerprint, "labels": split.fingerprint}
        | ({"au_faces": stores[1].fingerprint} if len(stores) > 1 else {}),
        main=accelerator.is_main_process,
    )
    accelerator.wait_for_everyone()
    if done := run.finished:
        score = checked(done, Summary, run.path / "finished.json")["macro_f1"]
        accelerator.print(f"{config.out} is finished: macro F1 {score:.4f}")
        return done
    track(accelerator, run, asdict(config))

    # The network and its optimizer.
    torch.manual_seed(config.seed)
    encoder = trainable(parent, pooling=config.pooling, drop_path=config.drop_path, patch_drop=config.patch_drop)
    size = encoder.config.image_size
    model = Classifier(encoder, config.dropout, units=len(stores) > 1).to(accelerator.device)
    optimizer = build_optimizer(model, lr=config.lr, weight_decay=config.weight_decay, layer_decay=config.layer_decay)
    ema = moving_average(model, config.ema_decay, pretrained=True)
    flops = count_flops(model, torch.zeros(1, 3, size, size, dtype=torch.uint8, device=accelerator.device))
    accelerator.print(
        f"{split.describe()}\n{text}\n"
        f"{steps:,} steps of {config.batch_size} ({accelerator.num_processes} process(es) x {plan.accumulation} x "
        f"{plan.micro_batch_size}) = {steps * config.batch_size / draw.count:.1f} epochs of {draw.count:,} drawn "
        f"frames; lr {config.lr:.1e} after {warmup} steps; "
        f"{describe_cost(model, flops, steps * config.batch_size)}"
    )

    # The loop.
    scorer = Scorer(
        accelerator,
        StillFrames(store, [config.view], size),
        split.validation.spaced(config.validation_frames_per_video),
        batch_size=4 * config.micro_batch_size,
        workers=config.workers,
    )
    validation = Validation(scorer, BestWeights(run.path / BEST), every=-(-steps // config.evaluations))
    lr_after_warmup = schedule.warmup_cosine if config.schedule == "cosine" else schedule.warmup_step
    loop = Loop(
        run=run,
        accelerator=accelerator,
        model=model,
        optimizer=optimizer,
        steps=steps,
        batch_size=config.batch_size,
        accumulation=plan.accumulation,
        lr_at=lambda step: lr_after_warmup(step, total=steps, warmup=warmup, peak=config.lr),
        seed=config.seed,
        clip_grad=config.clip_grad,
        log_every=config.log_every,
        save_every=config.save_every,
        flops=flops,
        ema=ema,
    )
    first = loop.resume()
    dataset = training_frames(
        stores,
        frames,
        draw,
        view=config.view,
        crop=RandomCrop(size, config.crop_scale),
        seed=config.seed,
        augment=picture_augmentation(
            framing_jitter=config.framing_jitter,
            blur=config.blur,
            randaugment=config.randaugment,
            colour_jitter=config.colour_jitter,
            erasing=config.erasing,
        ),
    )
    objective = Objective(
        expressions.mass,
        draw.labelled,
        imbalance=config.imbalance,
        label_smoothing=config.label_smoothing,
        mixup=config.mixup,
        cutmix=config.cutmix,
        device=accelerator.device,
    )
    judged = model if ema is None else ema.module
    loop.train(
        work_ahead(dataset, config.workers, plan.micro_batches(first, steps)),
        objective,
        lambda step: validation.after_step(run, judged, step, steps),
    )

    # The product: the best weights of the run.
    summary = finish(run, model, parent, store, split, scorer)
    accelerator.end_training()
    return summary
