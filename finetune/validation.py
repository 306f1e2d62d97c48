"""Validation during stage 2: probabilities of every validation frame, their score, and the best weights so far."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from checkpoints.encoder import load_tensors, save_tensors
from finetune.classifier import Classifier
from finetune.frames import LabelledFrames, StillFrames, still_batches
from tasks import EXPRESSIONS
from tasks.metrics import confusion, f1_from_confusion
from training.rundir import RunDirectory

IN_MEMORY = 512 * 2**20


class Validation:
    """The validation frames, shared out over the processes.

    Args:
        accelerator: Processes, device, precision.
        stills: Pictures of the store in the run's one view.
        frames: Which of them, with their labels.
        best: Where the best weights go.
        every: Steps between two validations.
        batch_size: Pictures per forward pass.
        workers: Processes that decode.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        stills: StillFrames,
        frames: LabelledFrames,
        best: "BestWeights",
        *,
        every: int,
        batch_size: int,
        workers: int,
    ) -> None:
        self.accelerator, self.stills, self.frames = accelerator, stills, frames
        self.best, self.every, self.workers = best, every, workers
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
                found = logits.softmax(dim=1)
                found[~batch["readable"].to(found.device)] = torch.nan
                probabilities[torch.from_numpy(self._mine[done : done + len(found)])] = found
                done += len(found)
        model.train(training)
        return np.asarray(self.accelerator.reduce(probabilities).cpu())

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

    def _pictures(self) -> Any:
        size = self.stills.size
        if self._decoded is None and len(self._mine) * 3 * size * size > IN_MEMORY:
            return still_batches(self.stills, self._batches, self.workers)
        if self._decoded is None:
            self._decoded = list(still_batches(self.stills, self._batches, self.workers))
        return self._decoded

    def score(self, probabilities: np.ndarray) -> dict[str, Any]:
        """Macro F1 and its parts over the frames whose picture can be decoded.

        Returns:
            `macro_f1` over the classes that occur among the labels (`classes` names them: with all eight it is the
            challenge's score), `accuracy`, `f1` by class, `confusion` (true class by row), `loss`, `frames`.
        """
        good = np.isfinite(probabilities).all(axis=1)
        predicted, targets = probabilities[good], self.frames.targets[good]
        counts = confusion(predicted.argmax(axis=1), targets.argmax(axis=1), len(EXPRESSIONS))
        f1 = f1_from_confusion(counts)
        present = counts.sum(axis=1) > 0
        return {
            "macro_f1": float(f1[present].mean()),
            "accuracy": float(np.trace(counts) / counts.sum()),
            "classes": [name for name, here in zip(EXPRESSIONS, present, strict=True) if here],
            "f1": {name: float(f1[number]) for number, name in enumerate(EXPRESSIONS) if present[number]},
            "confusion": counts.tolist(),
            "loss": float(-(targets * np.log(predicted.clip(1e-9))).sum(axis=1).mean()),
            "frames": int(good.sum()),
        }


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
