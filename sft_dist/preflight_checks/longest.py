"""The longest batch of a run, from the lengths of its examples: what memory must be enough for."""

from collections.abc import Sequence
from dataclasses import dataclass

from sft_dist.data.batching import split_global_batch
from sft_dist.data.sampler import BatchPlan
from sft_dist.data.tokenization import TokenizedExample

MAX_BATCHES = 64
"""Global batches looked at; of a run with more, the first ones."""
PROBED_MICRO_BATCHES = 2
"""Enough for gradients to add up; more would only take longer."""

Lengths = list[list[tuple[int, int]]]
"""(tokens, prompt tokens) of each example, by micro-batch."""


@dataclass(frozen=True)
class LongestBatch:
    """The rank and step with the largest micro-batch, and what a usual step is."""

    micro_batches: Lengths
    """The largest first; at most `PROBED_MICRO_BATCHES`, each within the token limit."""
    mean_rank_tokens: float
    """Tokens of a step on a rank, on average."""
    mean_micro_batches: float
    """Micro-batches of a step on a rank, on average."""

    @property
    def tokens(self) -> int:
        """Of the largest micro-batch."""
        return sum(length for length, _ in self.micro_batches[0])

    @property
    def target_tokens(self) -> int:
        """Of the same."""
        return sum(length - prompt for length, prompt in self.micro_batches[0])

    @property
    def probed_tokens(self) -> int:
        """Of all micro-batches that are probed."""
        return sum(length for part in self.micro_batches for length, _ in part)


def find_longest(
    examples: Sequence[TokenizedExample], plan: BatchPlan, *, world_size: int, max_tokens: int
) -> LongestBatch:
    """Plan the batches as the run will, and keep the largest."""
    longest: Lengths = []
    tokens = counts = 0
    num_batches = min(plan.total_steps, MAX_BATCHES)
    for step in range(num_batches):
        batch = [examples[i] for i in plan.global_batch(step)]
        ranks = split_global_batch([len(e) for e in batch], world_size, max_tokens)
        tokens += sum(len(e) for e in batch)
        counts += len(ranks[0])
        for rank in ranks:
            found = [[(len(batch[i]), batch[i].prompt_length) for i in part] for part in rank]
            if _largest(found) > _largest(longest):
                longest = sorted(filter(None, found), key=_tokens, reverse=True)
    shown = longest[:PROBED_MICRO_BATCHES]
    return LongestBatch(shown, tokens / num_batches / world_size, counts / num_batches)


def _tokens(part: Sequence[tuple[int, int]]) -> int:
    return sum(length for length, _ in part)


def _largest(parts: Lengths) -> int:
    return max(map(_tokens, parts), default=0)
