"""A state-space head against the Transformer of `ours` on equal features of SynthWild (synthetic numbers).

    python benchmarks/sound.py --out runs/sound && python benchmarks/state_space.py --out runs/sound

The heads of the row `vision` of `benchmarks/sound.py` are trained again with a selective state-space layer (Gu and Dao
2023: Mamba), once in each direction of time, in the place of the Transformer. Everything else is the same. The layer is
not part of the project, because it was not better.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import nn
from torch.nn import functional as F

import temporal.network
from benchmarks.sound import Config, score, settings
from checkpoints.artifact import read_json, write_json
from checkpoints.errors import guarded
from temporal.run import main as train_head


class Selective(nn.Module):
    """One direction of a Mamba block of width D with N states per channel: gate, short convolution, selective scan."""

    def __init__(self, width: int, states: int = 8) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.conv = nn.Conv1d(width, width, 4, groups=width, padding=3)
        self.choose, self.step = nn.Linear(width, 2 * states + 1), nn.Parameter(torch.full((width,), -3.0))
        self.decay = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(width, 1))
        self.skip = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, T, D]` -> `[B, T, D]`."""
        x, gate = self.enter(x).chunk(2, dim=-1)
        x = F.silu(self.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        step, write, read = self.choose(x).split([1, self.decay.shape[1], self.decay.shape[1]], dim=-1)
        step = F.softplus(step + self.step)[..., None]
        keep, add = torch.exp(-step * self.decay.exp()), step * write[..., None, :] * x[..., None]
        state, states = torch.zeros_like(add[:, 0]), []
        for t in range(x.shape[1]):
            state = keep[:, t] * state + add[:, t]
            states.append(state)
        y = (torch.stack(states, dim=1) * read[..., None, :]).sum(-1) + self.skip * x
        return self.leave(y * F.silu(gate))


class StateSpace(nn.Module):
    """Pre-norm blocks in both directions, with the arguments of `temporal.layers.Transformer`."""

    def __init__(self, dim: int, width: int, layers: int, *_: Any, dropout: float, **__: Any) -> None:
        super().__init__()
        self.project = nn.Linear(dim, width) if dim != width else nn.Identity()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.blocks = nn.ModuleList(nn.ModuleList([Selective(width), Selective(width)]) for _ in range(layers))
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """`[B, T, dim]` -> `[B, T, width]`."""
        x = self.project(x)
        pairs: Any = self.blocks
        for norm, (forth, back) in zip(self.norms, pairs, strict=True):
            y = norm(x) * inside[..., None]
            x = x + self.dropout(forth(y) + back(y.flip(1)).flip(1))
        return self.norm(x)


def main(config: Config) -> dict[str, Any]:
    """Train and score what is missing; returns scores by task of both kinds of heads, and their differences."""
    temporal.network.Transformer = StateSpace  # type: ignore[misc, assignment]
    result: dict[str, Any] = {"synthetic": True}
    for task in config.tasks:
        new, old = [], []
        for seed in range(config.seeds):
            run = config.out / "heads" / f"{task}_state_space_{seed}"
            features = (config.out / "faces",)
            if not (run / "test.json").exists():
                chosen = replace(settings(task, "vision", config), seed=seed, features=features, out=run)
                train_head(replace(chosen, labels=config.out / "corpus" / "release"))
                write_json(run / "test.json", {"all": score(config, task, run, features, every=0)})
            new.append(read_json(run / "test.json")["all"])
            old.append(read_json(config.out / "heads" / f"{task}_vision_{seed}" / "test.json")["all"])
        gain = np.subtract(new, old)
        result[task] = {"state_space": new, "ours": old, "gain": float(gain.mean()), "std": float(gain.std())}
        print(task, result[task])
        write_json(config.result, result)
    return result


if __name__ == "__main__":
    guarded(
        lambda: main(
            tyro.cli(Config, description=__doc__, default=Config(result=Path("benchmarks/results/state_space.json")))
        )
    )
