"""Feature extraction from top to bottom: the store and the encoder, what is stale, the job, the report."""

from typing import Any

import torch

from checkpoints.encoder import load_encoder
from checkpoints.lock import sole_writer
from checkpoints.ranges import check_ranges
from features.cache_report import write_report
from features.embed import Embedder, with_pooling
from features.job import Cache, extract_sequences, share
from features.presets import resolved
from features.settings import Extract
from preprocessing.faces import FacesStore
from preprocessing.views import check_views, describe_input
from wildaffect.tasks import EXPR
from wildaffect.tasks.class_map import ClassMap
from wildaffect.tasks.labels import read_every_split
from wildaffect.training.launch import chosen_precision, start


@sole_writer
def extract(config: Extract) -> dict[str, Any]:
    """Extract what is missing or stale; returns what was done.

    Raises:
        UserError: Inputs are missing or do not fit, or `out` holds something else.
    """
    check_ranges(config)
    config = resolved(config)
    accelerator = start(config.precision)
    # The first process hashes the store and remembers it; where nodes have copies of it, the first on each node.
    with accelerator.main_process_first(), accelerator.local_main_process_first():
        store = FacesStore(config.faces)
    encoder = with_pooling(load_encoder(config.encoder), config.pooling).to(accelerator.device)
    check_views(store, config.view)
    labels = None
    if config.labels is not None:
        names = ClassMap(config.class_map)
        labels = read_every_split(config.labels, EXPR, class_map=names, spans=store.spans())
        for line in names.lines():
            accelerator.print(line)
    text = describe_input(encoder, config.encoder, store.image_size)
    caches = [
        Cache(
            config.out / view if len(config.view) > 1 else config.out,
            Embedder(encoder, view, config.flip, store.framing),
            store,
            encoder_path=config.encoder,
            precision=chosen_precision(accelerator),
        )
        for view in config.view
    ]
    if all(cache.up_to_date for cache in caches):
        accelerator.print(f"{config.out} is up to date: {len(store.sequences()):,} sequences")
        for cache in caches if accelerator.is_main_process else ():
            if labels is not None or not (cache.path / "report.html").exists():
                write_report(cache.path, store, labels, unreadable=None)
        return {"extracted": 0, "frames": 0, "up_to_date": len(store.sequences())}
    if accelerator.is_main_process:
        for cache in caches:
            cache.open()
    accelerator.wait_for_everyone()
    accelerator.print(
        f"{text}\n{len(store.sequences()):,} sequences, {len(store):,} frames, {int(store.valid.sum()):,} with a face; "
        f"{', '.join(config.view)}; batches of {config.batch_size}"
    )
    mine = share(store.sequences(), accelerator.process_index, accelerator.num_processes)
    with torch.inference_mode():
        done = extract_sequences(accelerator, store, mine, caches, batch_size=config.batch_size, workers=config.workers)
    counts = torch.tensor([done.extracted, done.frames, done.up_to_date, done.unreadable], device=accelerator.device)
    total = accelerator.reduce(counts).tolist()
    summary = dict(zip(("extracted", "frames", "up_to_date", "unreadable"), total, strict=True))
    summary["frames_per_s"] = summary["frames"] / max(done.seconds, 1e-9)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        for cache in caches:
            cache.finish()
            write_report(cache.path, store, labels, summary["unreadable"])
        accelerator.print(
            f"{config.out}: {summary['extracted']:,} sequences with {summary['frames']:,} faces extracted in "
            f"{done.seconds:.1f} s ({summary['frames_per_s']:.0f}/s), {summary['up_to_date']:,} were up to date"
            + (f", {summary['unreadable']} pictures could not be decoded" if summary["unreadable"] else "")
        )
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return summary
