"""Scoring a classifier on labelled frames: probabilities of every frame, and what they are worth."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from checkpoints.artifact import write_json
from checkpoints.encoder import chosen_on
from checkpoints.errors import UserError
from finetune.classifier import Classifier, load_classifier
from finetune.frames import LabelledFrames
from finetune.labels import join
from finetune.settings import Evaluate
from preprocessing.faces import FacesStore
from preprocessing.views import StillFrames, check_views
from wildaffect.tasks import EXPR, EXPRESSIONS
from wildaffect.tasks.class_map import ClassMap
from wildaffect.tasks.labels import read_annotations, read_every_split
from wildaffect.tasks.leaks import scoreable, together
from wildaffect.tasks.metrics import confusion, f1_from_confusion, macro_f1
from wildaffect.tasks.split_words import split_of_word
from wildaffect.training.images import work_ahead
from wildaffect.training.launch import start

IN_MEMORY = 512 * 2**20


class Scorer:
    """Scores labelled frames, shared out over the processes; `stills` holds the classifier's one view."""

    def __init__(
        self, accelerator: Accelerator, stills: StillFrames, frames: LabelledFrames, *, batch_size: int, workers: int
    ) -> None:
        self.accelerator, self.stills, self.frames = accelerator, stills, frames
        self.workers = workers
        mine = np.array_split(np.arange(len(frames)), accelerator.num_processes)[accelerator.process_index]
        self._mine = mine
        self._batches = [frames.rows[mine[at : at + batch_size]].tolist() for at in range(0, len(mine), batch_size)]
        self._decoded: list[dict[str, torch.Tensor]] | None = None

    def probabilities(self, model: Classifier) -> np.ndarray:
        """Class probabilities `[N, 8]` of all frames, on every process; NaN where a picture cannot be decoded."""
        training = model.training
        model.eval()
        probabilities = torch.zeros(len(self.frames), len(EXPRESSIONS), device=self.accelerator.device)
        done = 0
        with torch.inference_mode(), self.accelerator.autocast():
            for batch in self._pictures():
                logits = model(batch["images"][:, 0].to(self.accelerator.device)).float()
                found = logits[:, : len(EXPRESSIONS)].softmax(dim=1)
                found[~batch["readable"].to(found.device)] = torch.nan
                probabilities[torch.from_numpy(self._mine[done : done + len(found)])] = found
                done += len(found)
        model.train(training)
        return np.asarray(self.accelerator.reduce(probabilities).cpu())

    def _pictures(self) -> Iterable[dict[str, torch.Tensor]]:
        size = self.stills.size
        if self._decoded is None and len(self._mine) * 3 * size * size > IN_MEMORY:
            return work_ahead(self.stills, self.workers, self._batches)
        if self._decoded is None:
            self._decoded = list(work_ahead(self.stills, self.workers, self._batches))
        return self._decoded

    def score(self, probabilities: np.ndarray) -> dict[str, Any]:
        """Macro F1 and its parts over the frames whose picture can be decoded.

        Returns:
            `macro_f1` over the classes that occur among the labels (`classes` names them: with all eight it is the
            challenge's score), `accuracy`, `majority` (accuracy of always giving the commonest class), `f1` by class,
            `confusion` (true class by row), `loss`, `frames`.
        """
        good = np.isfinite(probabilities).all(axis=1)
        predicted, targets = probabilities[good], self.frames.targets[good]
        counts = confusion(predicted.argmax(axis=1), targets.argmax(axis=1), len(EXPRESSIONS))
        f1 = f1_from_confusion(counts)
        present = counts.sum(axis=1) > 0
        return {
            "macro_f1": macro_f1(counts, present=True),
            "accuracy": float(np.trace(counts) / counts.sum()),
            "majority": float(counts.sum(axis=1).max() / counts.sum()),
            "classes": [name for name, here in zip(EXPRESSIONS, present, strict=True) if here],
            "f1": {name: float(f1[number]) for number, name in enumerate(EXPRESSIONS) if present[number]},
            "confusion": counts.tolist(),
            "loss": float(-(targets * np.log(predicted.clip(1e-9))).sum(axis=1).mean()),
            "frames": int(good.sum()),
        }


def score_run(config: Evaluate) -> dict[str, Any]:
    """Score a finished run of stage 2 on labelled faces, print the scores and return them.

    Raises:
        UserError: Inputs are missing or do not fit, or every labelled video taught or chose the run.
    """
    accelerator = start(config.precision)
    store = FacesStore(config.faces)
    model, view = load_classifier(config.run)
    check_views(store, [view])
    names, spans = ClassMap(config.class_map), store.spans()
    if config.split == "all":
        source = read_every_split(config.labels, EXPR, class_map=names, spans=spans)
    else:
        source = read_annotations(config.labels, EXPR, split_of_word(config.split), class_map=names, spans=spans)
    if not source:
        other = "" if config.split == "all" else "; --split all takes every split, and labels without splits"
        raise UserError(f"{config.labels} holds no expression labels (split: {config.split}){other}")
    notes, provenance = names.notes, model.encoder.provenance
    kept = scoreable(
        sorted(source),
        tasks={"expr"},
        encoder=together(provenance.get("labelled_videos") or {}, chosen_on(provenance)),
        head=(),
        allow_leak=config.allow_leak,
        rule_clean=False,
    )
    frames = join(store, EXPR, {id: source[id] for id in kept}, config.split, config.labels, notes)
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
            f"accuracy {scores['accuracy']:.4f} (most frequent class {scores['majority']:.4f}), "
            f"{scores['frames']:,} frames of {len(frames.ids):,} videos"
        )
        if config.json is not None:
            write_json(config.json, scores)
    return scores
