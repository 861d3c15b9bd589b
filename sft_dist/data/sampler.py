"""Which examples are in a global batch: a pure function of (seed, epoch, position).

Ranks, micro-batches and restarts do not enter, so a run keeps its batches at any world size and a
resume computes its place instead of replaying to it.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=2)
def epoch_order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    """(num_examples,) permutation of the example indices in one epoch."""
    key = np.array([seed, epoch], dtype=np.uint64)  # a plain list of large seeds becomes floats
    return np.random.Generator(np.random.Philox(key=key)).permutation(num_examples)


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The global batches of a run, one a step; the last of an epoch may be short."""

    num_examples: int
    global_batch_size: int
    num_epochs: int
    seed: int
    max_steps: int | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Global batches in one pass over the examples."""
        return -(-self.num_examples // self.global_batch_size)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        steps = self.steps_per_epoch * self.num_epochs
        return min(steps, self.max_steps) if self.max_steps else steps

    def is_epoch_end(self, step: int) -> bool:
        """Whether `step` completed steps are a whole number of epochs."""
        return step % self.steps_per_epoch == 0

    def global_batch(self, step: int) -> np.ndarray:
        """Indices of the examples of the step that follows `step` completed ones."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.global_batch_size
        order = epoch_order(self.num_examples, self.seed, epoch)
        return order[start : start + self.global_batch_size]
