"""Validation during stage 2, and the best weights so far."""

from dataclasses import dataclass
from pathlib import Path

import torch

from checkpoints.tensors import load_tensors, save_tensors
from finetune.classifier import Classifier
from finetune.scoring import Scorer
from wildaffect.training.rundir import RunDirectory

BEST = "best.safetensors"


class BestWeights:
    """The best weights so far, in one file that holds their score too.

    A killed run may have been validated after its last saved state, so the file can be ahead of that state. The resumed
    run then reaches the same scores again, none of them better, and leaves the file as an uninterrupted run would.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.score, self.step = -1.0, 0
        if path.exists():
            tensors = load_tensors(path)
            self.score, self.step = float(tensors["best.score"]), int(tensors["best.step"])

    def offer(self, model: Classifier, score: float, step: int) -> bool:
        """Keep the weights if they score higher than those kept (ties keep the older ones); returns whether."""
        if score <= self.score:
            return False
        self.score, self.step = score, step
        marks = {"best.score": torch.tensor(score, dtype=torch.float64), "best.step": torch.tensor(step)}
        save_tensors(self.path, {**model.state_dict(), **marks})
        return True

    def load_into(self, model: Classifier) -> None:
        """Load the kept weights into a network."""
        tensors = load_tensors(self.path)
        model.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.startswith("best.")})


@dataclass
class Validation:
    """Scores the validation frames every `every` steps of a run and keeps the best weights."""

    scorer: Scorer
    best: BestWeights
    every: int

    def after_step(self, run: RunDirectory, model: Classifier, step: int, steps: int) -> None:
        """After every `every`-th step and the last one, score the network and keep it if it is the best so far."""
        if step % self.every and step != steps:
            return
        accelerator = self.scorer.accelerator
        scores = self.scorer.score(self.scorer.probabilities(model))
        run.log({"step": step, **{f"validation_{key}": scores[key] for key in ("macro_f1", "accuracy", "loss")}})
        kept = accelerator.is_main_process and self.best.offer(model, scores["macro_f1"], step)
        accelerator.print(
            f"step {step}/{steps}  validation macro F1 {scores['macro_f1']:.4f}, accuracy {scores['accuracy']:.4f}"
            + ("  (best so far)" if kept else "")
        )
