"""A fine-tuned run on other labelled faces: `python finetune/evaluate.py --run RUN --faces STORE --labels LABELS`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from checkpoints.errors import UserError, guarded
from checkpoints.ranges import check_ranges


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score a run of finetune/run.py on faces that it was not trained on."""

    run: Path
    """Run directory with its encoder and classifier."""
    faces: Path
    """Faces store."""
    labels: Path
    """Labels, as for finetune/run.py."""
    split: Literal["Train_Set", "Validation_Set", "all"] = "Validation_Set"
    """Which of the labels' splits; all: every split, and labels without any."""
    class_map: Path | None = None
    """See finetune/run.py."""
    allow_leak: bool = False
    """Score videos whose labels the run learnt from too."""
    json: Path | None = None
    """Where to write the scores."""
    batch_size: int = 256
    """Pictures per forward pass."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic; auto: bf16 where the hardware has it."""
    workers: int = 1
    """Processes that decode pictures; 0: none."""


def main(config: Evaluate) -> dict[str, Any]:
    """Score; returns what :meth:`finetune.scoring.Scorer.score` does.

    Raises:
        UserError: Inputs are missing or do not fit; every video was trained on.
    """
    from checkpoints.artifact import write_json
    from finetune.classifier import load_classifier
    from finetune.frames import StillFrames, check_views
    from finetune.label_sources import ClassMap, read_source
    from finetune.labels import join
    from finetune.scoring import Scorer
    from preprocessing.faces import FacesStore
    from wildaffect.tasks.leaks import scoreable
    from wildaffect.training.launch import start

    check_ranges(config)
    accelerator = start(config.precision)
    store = FacesStore(config.faces)
    model, view = load_classifier(config.run)
    check_views(store, [view])
    names = ClassMap(config.class_map)
    chosen = None if config.split == "all" else config.split
    source = read_source(config.labels, chosen, names, {sequence.id: sequence for sequence in store.sequences()})
    if not source:
        other = "" if chosen is None else "; --split all takes those of every split, or without any"
        raise UserError(f"{config.labels} holds no expression labels (split: {config.split}){other}")
    notes = names.notes
    kept = scoreable(
        sorted(source),
        tasks={"expr"},
        encoder=model.encoder.provenance.get("labelled_videos", {}),
        head=(),
        allow_leak=config.allow_leak,
        rule_clean=False,
    )
    frames = join(store, {id: source[id] for id in kept}, config.split, config.labels, notes)
    stills = StillFrames(store, [view], model.encoder.config.image_size)
    scorer = Scorer(accelerator, stills, frames, batch_size=config.batch_size, workers=config.workers)
    scores = scorer.score(scorer.probabilities(model.to(accelerator.device)))
    if accelerator.is_main_process:
        lines = [f"class {name!r} is {target or 'left out'}" for name, target in sorted(names.used.items())]
        lines += [f"note: {note}" for note in notes]
        lines += [f"{name:>10}  F1 {value:.4f}" for name, value in scores["f1"].items()]
        print("\n".join(lines))
        print(
            f"macro F1 {scores['macro_f1']:.4f} over {len(scores['classes'])} classes, "
            f"accuracy {scores['accuracy']:.4f} (commonest class {scores['majority']:.4f}), "
            f"{scores['frames']:,} frames of {len(frames.ids):,} videos"
        )
        if config.json is not None:
            write_json(config.json, scores)
    return scores


def command_line() -> None:
    """Parse the command line and score."""
    import tyro

    main(tyro.cli(Evaluate, description=__doc__))


if __name__ == "__main__":
    guarded(command_line)
