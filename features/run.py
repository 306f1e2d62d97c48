"""Feature extraction: `accelerate launch features/run.py --encoder ENC --faces STORE --out CACHE`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from checkpoints.errors import guarded
from checkpoints.ranges import check_ranges
from preprocessing.views import ViewName


@dataclass(frozen=True, kw_only=True)
class Extract:
    """Cache an encoder's features of every frame of a faces store; goes on where a killed run stopped."""

    encoder: str
    """Encoder directory, a run that made one, timm:NAME, or the folder of a published timm model."""
    faces: Path
    """Faces store."""
    out: Path
    """Feature cache; with several views the folder that gets one cache per view."""
    view: tuple[ViewName, ...] = ("full",)
    """Parts of the face; several are extracted in one pass."""
    pooling: Literal["cls", "mean", "cls_mean", "model"] | None = None
    """How tokens become one vector; none: as the encoder was trained."""
    flip: bool = False
    """Average the features of each picture and its mirror image."""
    labels: Path | None = None
    """Expression labels (as for finetune/run.py) that colour the report's map of the features."""
    class_map: Path | None = None
    """See finetune/run.py."""
    batch_size: int = 256
    """Pictures per forward pass; batches fill across videos."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic; auto: bf16 where the hardware has it."""
    workers: int = 1
    """Processes per process that decode pictures; 0: none."""


def main(config: Extract) -> dict[str, Any]:
    """Extract what is missing or stale; returns what was done.

    Raises:
        UserError: Inputs are missing or do not fit, or `out` holds something else.
    """
    import torch

    from checkpoints.encoder import load_encoder
    from features.cache_report import labels_of_store, write_report
    from features.embed import Embedder, with_pooling
    from features.job import Cache, extract_sequences, share
    from finetune.classifier import describe_input
    from finetune.frames import check_views
    from preprocessing.faces import FacesStore
    from wildaffect.training.launch import chosen_precision, start

    check_ranges(config)
    accelerator = start(config.precision)
    store = FacesStore(config.faces)
    encoder = with_pooling(load_encoder(config.encoder), config.pooling).to(accelerator.device)
    check_views(store, config.view)
    labels = None if config.labels is None else labels_of_store(store, config.labels, config.class_map)
    text = describe_input(encoder, config.encoder, store.image_size)
    caches = [
        Cache(
            config.out / view if len(config.view) > 1 else config.out,
            Embedder(encoder, view, config.flip),
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
            f"{done.seconds:.1f} s ({summary['frames_per_s']:.0f}/s), {summary['up_to_date']:,} "
            f"were up to date"
            + (f", {summary['unreadable']} pictures could not be decoded" if summary["unreadable"] else "")
        )
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return summary


def command_line() -> None:
    """Parse the command line and extract."""
    import tyro

    main(tyro.cli(Extract, description=__doc__))


if __name__ == "__main__":
    guarded(command_line)
