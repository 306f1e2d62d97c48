"""Which samples make up the batch of a step, and which process gets which.

The global batch of a step depends only on (seed, step): it is the same for 1 or 64 processes, and after a resume.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from checkpoints.errors import UserError


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Permutation `[count]` of the samples in one epoch."""
    return np.random.default_rng((seed, epoch)).permutation(count)


@dataclass(frozen=True)
class BatchPlan:
    """How a global batch is divided among processes and accumulation steps.

    Attributes:
        count: Number of samples.
        batch_size: Samples per optimizer step, over all processes.
        micro_batch_size: Samples per forward pass of one process.
        accumulation: Forward-backward passes per optimizer step.
        rank: This process.
        world: Number of processes.
        seed: Seed of the permutations.
    """

    count: int
    batch_size: int
    micro_batch_size: int
    accumulation: int
    rank: int
    world: int
    seed: int

    @classmethod
    def derive(cls, *, count: int, batch_size: int, most: int, rank: int, world: int, seed: int) -> "BatchPlan":
        """Use the fewest accumulation steps with which a forward pass has at most `most` samples.

        Raises:
            UserError: There are no samples, or the batch cannot be divided evenly.
        """
        if count == 0:
            raise UserError("there are no samples to train on")
        share, rest = divmod(batch_size, world)
        if rest:
            raise UserError(f"the global batch size {batch_size} cannot be divided evenly among {world} processes")
        accumulation = next(n for n in range(1, share + 1) if share % n == 0 and share // n <= most)
        return cls(count, batch_size, share // accumulation, accumulation, rank, world, seed)

    def steps(self, epochs: float) -> int:
        """Number of optimizer steps in `epochs` epochs."""
        return max(1, round(epochs * self.count / self.batch_size))

    def global_batch(self, step: int) -> list[tuple[int, int]]:
        """The (epoch, sample index) pairs of one optimizer step, over all processes.

        Samples come from one endless stream of permuted epochs, so none are dropped at the end of an epoch.
        """
        start = step * self.batch_size
        pairs = []
        for position in range(start, start + self.batch_size):
            epoch, place = divmod(position, self.count)
            pairs.append((epoch, int(epoch_order(self.seed, epoch, self.count)[place])))
        return pairs

    def micro_batches(self, first: int, last: int) -> Iterator[list[tuple[int, int]]]:
        """This process's micro-batches of steps `first` up to `last` (exclusive), `accumulation` per step."""
        for step in range(first, last):
            share = self.share(step)
            for start in range(0, len(share), self.micro_batch_size):
                yield share[start : start + self.micro_batch_size]

    def share(self, step: int) -> list[tuple[int, int]]:
        """This process's part of the global batch of a step, in the order of its micro-batches."""
        batch = self.global_batch(step)
        starts = range(self.rank * self.micro_batch_size, len(batch), self.world * self.micro_batch_size)
        return [pair for start in starts for pair in batch[start : start + self.micro_batch_size]]


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Random generator for the crop, flip and mask of one sample in one epoch, in whatever process they are drawn."""
    return np.random.default_rng((seed, epoch, index))
