"""Validation during stage 2, and the best weights so far."""

from pathlib import Path
from typing import Any

import torch

from checkpoints.encoder import load_tensors, save_tensors
from finetune.classifier import Classifier
from finetune.scoring import Scorer
from wildaffect.training.rundir import RunDirectory


class BestWeights:
    """The best weights so far, in one file that carries its own score.

    A killed run may have evaluated steps beyond its last state. The file is then ahead of the state: the resumed run
    comes to the same scores again, finds none better than the file's, and leaves it as an uninterrupted run would.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.score, self.step = -1.0, 0
        if path.exists():
            tensors = load_tensors(path)
            self.score, self.step = float(tensors["best.score"]), int(tensors["best.step"])

    def offer(self, model: Classifier, score: float, step: int) -> bool:
        """Keep the weights if they score higher than those kept; the first of equals stays."""
        if score <= self.score:
            return False
        self.score, self.step = score, step
        marks = {"best.score": torch.tensor(score, dtype=torch.float64), "best.step": torch.tensor(step)}
        save_tensors(self.path, {**model.state_dict(), **marks})
        return True

    def load_into(self, model: Classifier) -> None:
        """Give the kept weights to a network."""
        tensors = load_tensors(self.path)
        model.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.startswith("best.")})


class Validation(Scorer):
    """The validation frames of a run.

    Args:
        best: Where the best weights go.
        every: Steps between two validations.
        scorer: Arguments of :class:`finetune.scoring.Scorer`.
    """

    def __init__(self, *scorer: Any, best: BestWeights, every: int, **further: Any) -> None:
        super().__init__(*scorer, **further)
        self.best, self.every = best, every

    def after_step(self, run: RunDirectory, model: Classifier, step: int, steps: int) -> None:
        """Score the network when it is time, and keep it if it is the best so far."""
        if step % self.every and step != steps:
            return
        scores = self.score(self.probabilities(model))
        run.log({"step": step, **{f"validation_{key}": scores[key] for key in ("macro_f1", "accuracy", "loss")}})
        kept = self.accelerator.is_main_process and self.best.offer(model, scores["macro_f1"], step)
        self.accelerator.print(
            f"step {step}/{steps}  validation macro F1 {scores['macro_f1']:.4f}, accuracy {scores['accuracy']:.4f}"
            + ("  (best so far)" if kept else "")
        )
