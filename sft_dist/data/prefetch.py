"""The batch of the next step is made while the current step computes.

A batch is a pure function of the step, so nothing is kept for a resume and the thread changes no
result: it only moves the work to where nobody waits for it.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from sft_dist.data.batching import Plan, computed_tokens, split_global_batch
from sft_dist.data.packing import MicroBatch, micro_batches
from sft_dist.data.sampler import BatchPlan
from sft_dist.data.tokenization import TokenizedExample
from sft_dist.normalization import LossNormalization


@dataclass(frozen=True)
class StepBatch:
    """The global batch of one step, and what this rank computes of it."""

    examples: list[TokenizedExample]
    """The whole global batch, in the order of the epoch."""
    plan: Plan
    """Positions in `examples` by rank and micro-batch."""
    computed_tokens: list[list[int]]
    """Tokens by rank and micro-batch, with padding."""
    micro_batches: list[MicroBatch]
    """This rank's."""
    num_target_tokens: int
    """Tokens with a loss, of all ranks."""
    normalizer: float
    """What the loss of the global batch is divided by, see `LossNormalization`."""


@dataclass(frozen=True, kw_only=True)
class BatchBuilder:
    """Step -> its batch, as seen by one rank."""

    examples: Sequence[TokenizedExample]
    plan: BatchPlan
    rank: int
    world_size: int
    max_tokens: int
    """Most tokens in a micro-batch."""
    packing: bool
    normalization: LossNormalization
    device: torch.device
    """Where the batch is going: memory is pinned for a GPU, so that the copy waits for nothing."""

    def __call__(self, step: int) -> StepBatch:
        """The batch of the step that follows `step` completed ones."""
        batch = [self.examples[i] for i in self.plan.global_batch(step)]
        lengths = [len(e) for e in batch]
        plan = split_global_batch(lengths, self.world_size, self.max_tokens)
        mine = micro_batches(
            batch, plan[self.rank], normalization=self.normalization, packing=self.packing
        )
        if self.device.type == "cuda":
            # A new thread stands on GPU 0; without this every rank would open a context there.
            with torch.cuda.device(self.device):
                mine = [_pinned(micro_batch) for micro_batch in mine]
        targets = sum(e.num_target_tokens for e in batch)
        return StepBatch(
            batch,
            plan,
            computed_tokens(plan, lengths, packing=self.packing),
            mine,
            num_target_tokens=targets,
            normalizer=self.normalization.normalizer(
                num_examples=len(batch), num_target_tokens=targets
            ),
        )


class BatchLoader:
    """One batch ahead of the step that computes, in a thread that `close` ends."""

    def __init__(self, build: Callable[[int], StepBatch], *, total_steps: int) -> None:
        self._build = build
        self._total_steps = total_steps
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="next-batch")
        self._ahead: tuple[int, Future[StepBatch]] | None = None

    def take(self, step: int) -> StepBatch:
        """The batch of `step`; that of `step + 1` is begun. What the builder raised comes here."""
        if self._ahead is None or self._ahead[0] != step:
            self.prepare(step)
        assert self._ahead is not None
        batch = self._ahead[1].result()
        if step + 1 < self._total_steps:
            self.prepare(step + 1)
        return batch

    def prepare(self, step: int) -> None:
        """Begin to make the batch of `step`; one begun for another step is given up."""
        if self._ahead is not None:
            self._ahead[1].cancel()
        self._ahead = (step, self._thread.submit(self._build, step))

    def close(self) -> None:
        """End the thread; at most the batch that it is making is waited for."""
        self._thread.shutdown(cancel_futures=True)


def _pinned(micro_batch: MicroBatch) -> MicroBatch:
    tensors = {
        f.name: value.pin_memory()
        for f in fields(micro_batch)
        if isinstance(value := getattr(micro_batch, f.name), Tensor)
    }
    return replace(micro_batch, **tensors)
