"""The training loop of all stages; batches, loss and evaluation are passed in."""

import math
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from timm.utils import ModelEmaV3
from torch import nn
from tqdm import tqdm

from checkpoints.artifact import write_json
from checkpoints.errors import UserError
from checkpoints.state import load_state, optimizer_tensors, restore_optimizer, save_state
from wildaffect.report.formats import duration, scaled
from wildaffect.training.launch import peak, reseed
from wildaffect.training.meter import Meter
from wildaffect.training.rundir import RunDirectory
from wildaffect.training.schedule import set_lr

PREEMPTED = 143
"""Exit status after SIGTERM (128 + 15, as shells report it): the state is saved, the same command resumes the run."""
SINCE = "since_last_record"
"""What a state calls the measurements that no record holds yet."""
MOST_BAD = 0.01
"""Largest fraction of pictures that may be broken."""

Facts = dict[str, Any]


@dataclass
class Loop:
    """Runs forward, backward, optimizer step, logging and saving, `steps` times.

    Attributes:
        run: Where records and states are written.
        accelerator: Processes, device, precision.
        model: The network; its state dict is saved.
        optimizer: Optimizer of the network's parameters; not prepared by Accelerate.
        steps: Optimizer steps of the whole run.
        batch_size: Samples per optimizer step, over all processes.
        lr_at: Learning rate as a function of the 0-based step.
        seed: Seed of the randomness inside steps.
        accumulation: Micro-batches per optimizer step.
        clip_grad: Largest gradient norm; 0: no clipping.
        log_every: Steps between records.
        save_every: Steps between states.
        flops: Floating-point operations of one sample's forward pass; 0 if unknown.
        ema: From :func:`wildaffect.training.averaging.moving_average`; updated after each step.
        compile: Compile the network; the saved weights keep the names that they have in `model`.
        facts: Anything else that must survive a kill (best score so far, ...): JSON values. `loss` is that of the last
            record.
        step: Steps done.
    """

    run: RunDirectory
    accelerator: Accelerator
    model: nn.Module
    optimizer: torch.optim.Optimizer
    steps: int
    batch_size: int
    lr_at: Callable[[int], float]
    seed: int
    accumulation: int = 1
    clip_grad: float = 0.0
    log_every: int = 10
    save_every: int = 100
    flops: float = 0.0
    ema: ModelEmaV3 | None = None
    compile: bool = False
    facts: Facts = field(default_factory=dict)
    step: int = 0
    _asked: bool = False  # this process has received SIGTERM
    _stop: bool = False  # a process received it before this step's collective, so all of them stop together
    _names: list[str] = field(default_factory=list)  # names of this process's samples in this step

    def __post_init__(self) -> None:
        self._meter = self._new_meter()

    def _new_meter(self, before: Sequence[Sequence[float]] = ()) -> Meter:
        return Meter(self.batch_size, self.flops, peak(self.accelerator), before)

    def resume(self) -> int:
        """Load the newest intact state, if there is one; returns the number of steps done."""
        loaded = load_state(self.run.state)
        if loaded is not None:
            self.step, groups, self.facts = loaded
            self.model.load_state_dict(groups["model"])
            restore_optimizer(self.optimizer, groups["optimizer"])
            if self.ema is not None:
                self.ema.load_state_dict(groups["ema"])
            self._meter = self._new_meter(self.facts.pop(SINCE, ()))
            self.accelerator.print(f"resumed after step {self.step} of {self.steps}")
        self.run.rewind(self.step)
        return self.step

    def save(self) -> None:
        """Save the current state."""
        if self.accelerator.is_main_process:
            groups = {"model": self.model.state_dict(), "optimizer": optimizer_tensors(self.optimizer)}
            if self.ema is not None:
                groups["ema"] = self.ema.state_dict()
            save_state(self.run.state, self.step, groups, self.facts | {SINCE: self._meter.steps})
        self.accelerator.wait_for_everyone()

    def train(
        self,
        batches: Iterable[Any],
        loss_of: Callable[[nn.Module, Any], torch.Tensor],
        after_step: Callable[[int], None] | None = None,
    ) -> None:
        """Train from `self.step` to `self.steps`.

        Args:
            batches: This process's micro-batches from step `self.step` on, `accumulation` per step. If they are
                dictionaries, they may hold the `names` of the samples and of the pictures that were `skipped`; both
                are removed before `loss_of` is called.
            loss_of: Maps (network, batch) to the mean loss of the micro-batch; all micro-batches have the same size.
            after_step: Called after each step with the number of steps done, for evaluation and the like.

        Raises:
            UserError: The loss or a gradient is not finite (the state before that step is saved), or too many pictures
                are broken.
        """
        self.run.begin()
        network: nn.Module = self.accelerator.prepare_model(self.model)
        if self.compile:
            network = cast(nn.Module, torch.compile(network))
        network.train()
        source = iter(batches)
        previous = signal.signal(signal.SIGTERM, self._request_stop)
        # None: no bar where nobody watches it.
        hidden = None if self.accelerator.is_main_process else True
        bar = tqdm(total=self.steps, initial=self.step, unit="step", disable=hidden)
        try:
            while self.step < self.steps:
                lr = self.lr_at(self.step)
                set_lr(self.optimizer, lr)
                reseed(self.seed, self.step, self.accelerator.process_index)
                loss = self._forward_backward(network, source, loss_of)
                norm = self._check_and_clip(loss)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                self.step += 1
                if self.ema is not None:
                    self.ema.update(self.model, self.step)
                self._meter.add(loss, norm)
                bar.update()
                if self.step % self.log_every == 0 or self.step == self.steps:
                    self._log(lr, bar)
                if after_step is not None:
                    after_step(self.step)
                    network.train()
                if self.step % self.save_every == 0 or self.step == self.steps or self._stop:
                    self.save()
                if self._stop and self.step < self.steps:
                    self.accelerator.print(
                        f"stopped by SIGTERM after step {self.step}; the same command resumes the run"
                    )
                    sys.exit(PREEMPTED)
        finally:
            bar.close()
            signal.signal(signal.SIGTERM, previous)

    def _forward_backward(
        self, network: nn.Module, source: Iterator[Any], loss_of: Callable[[nn.Module, Any], torch.Tensor]
    ) -> float:
        """Accumulate gradients over the step's micro-batches; returns the loss, averaged over processes."""
        total = torch.zeros((), device=self.accelerator.device)
        self._names, bad = [], 0
        for number in range(self.accumulation):
            with self._meter.waiting():
                batch = next(source)
                bad += self._set_aside(batch)
                batch = send_to_device(batch, self.accelerator.device, non_blocking=True)
            last = number == self.accumulation - 1
            with nullcontext() if last else self.accelerator.no_sync(network):
                with self.accelerator.autocast():
                    loss = loss_of(network, batch) / self.accumulation
                self.accelerator.backward(loss)
            total += loss.detach()
        # One collective per step sums up the loss, whether a process received SIGTERM, and the number of broken
        # pictures, so that all processes stop after the same step.
        told = torch.stack([total, *torch.tensor([float(self._asked), bad], device=total.device)])
        loss_sum, stop, bad_of_all = self.accelerator.reduce(told, reduction="sum").tolist()
        self._stop = stop > 0
        self._count_bad(round(bad_of_all))
        return float(loss_sum) / self.accelerator.num_processes

    def _set_aside(self, batch: Any) -> int:
        """Remove the names from a batch and report the pictures that were skipped; returns their number."""
        if not isinstance(batch, dict):
            return 0
        self._names += batch.pop("names", [])
        skipped = batch.pop("skipped", [])
        for name in skipped:
            print(f"skipped a bad picture: {name}", flush=True)
        return len(skipped)

    def _count_bad(self, more: int) -> None:
        """Count broken pictures, each time one is read.

        Raises:
            UserError: They are more than `MOST_BAD` of all pictures read.
        """
        if not more:
            return
        bad = self.facts["bad_pictures"] = self.facts.get("bad_pictures", 0) + more
        read = (self.step + 1) * self.batch_size
        if bad > max(3, MOST_BAD * read):
            raise UserError(f"{bad} of {read:,} pictures cannot be decoded (they are listed above): check the store")

    def _check_and_clip(self, loss: float) -> float:
        """Stop if loss or gradient is not finite, then clip the gradient; returns its norm before clipping."""
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not math.isfinite(loss) or not math.isfinite(float(norm)):
            self._report_non_finite(loss, float(norm))
        if self.clip_grad:
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), self.clip_grad, norm)
        return float(norm)

    def _report_non_finite(self, loss: float, norm: float) -> None:
        """Save the state before the step and report its samples."""
        self.save()
        by_process = gather_object([self._names])
        report = self.run.path / "non_finite.json"
        if self.accelerator.is_main_process:
            facts = {"step": self.step + 1, "loss": str(loss), "grad_norm": str(norm), "seed": self.seed}
            write_json(report, facts | {"samples_by_process": by_process})
        what = f"the loss of step {self.step + 1} is {loss}"
        if math.isfinite(loss):
            what = f"the gradient of step {self.step + 1} is not finite (its loss is {loss:.4g})"
        raise UserError(
            f"{what}: the state before this step is saved in {self.run.state}, and {report} lists its samples. The "
            "same command repeats this very step; to avoid it, use another --out and a lower --lr, --clip-grad or "
            "--precision fp32"
        )

    def _log(self, lr: float, bar: tqdm) -> None:
        record = {"step": self.step, "lr": lr, **self._meter.read()}
        self.facts["loss"] = record["loss"]
        self.run.log(record)
        left = (self.steps - self.step) * self.batch_size / max(record["images_per_s"], 1e-9)
        line = (
            f"step {self.step}/{self.steps}  loss {record['loss']:.4f}  lr {lr:.2e}  {record['images_per_s']:.0f}/s  "
            f"waiting {record['data_wait']:.0%}"
        )
        line += f"  {scaled(record['tflops'] * 1e12, 'FLOP/s')}" if self.flops else ""
        line += f" ({record['peak_share']:.0%} of peak)" if "peak_share" in record else ""
        if self.accelerator.is_main_process:
            bar.write(f"{line}  {duration(left)} left" if self.step < self.steps else line, file=sys.stdout)

    def _request_stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._asked = True
