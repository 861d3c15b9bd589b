"""Examples -> one packed row without padding, or the padded rows of a plain batch.

Shapes: `T` tokens of the packed row, `N` target tokens in it, `E` examples in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from sft_dist.data.tokenization import TokenizedExample


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass of one rank reads. `position_ids` restart at 0 with each example."""

    input_ids: Tensor
    """(1, T) int64."""
    position_ids: Tensor
    """(1, T) int64."""
    cu_seqlens: Tensor
    """(E + 1,) int32: where each example starts, and T."""
    lengths: tuple[int, ...]
    """(E,) tokens of each example; on the host, so that no kernel waits for them."""
    target_positions: Tensor
    """(N,) int64: positions in the row whose next token has a loss."""
    target_ids: Tensor
    """(N,) int64: those next tokens."""
    weight: float
    """1, or 0 for the stand-in of a rank without examples: it runs, and counts for nothing."""
    example_ids: tuple[str, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens of real examples."""
        return self.input_ids.shape[1] if self.weight else 0

    @property
    def num_target_tokens(self) -> int:
        """Tokens with a loss."""
        return self.target_ids.shape[0] if self.weight else 0

    def to(self, device: torch.device) -> "MicroBatch":
        """The same micro-batch with its tensors on `device`."""
        moved = {
            f.name: value.to(device, non_blocking=True)
            if isinstance(value := getattr(self, f.name), Tensor)
            else value
            for f in fields(self)
        }
        return MicroBatch(**moved)


def pack(examples: Sequence[TokenizedExample]) -> MicroBatch:
    """Concatenate examples into one row.

    The logits at position `p` predict the token at `p + 1`, so an example of `T` tokens with a
    prompt of `P` has its losses at positions `P - 1 ... T - 2` of its stretch of the row.
    """
    lengths = [len(e) for e in examples]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    row = np.concatenate([e.input_ids for e in examples])
    targets = np.concatenate(
        [
            np.arange(start + max(e.prompt_length, 1) - 1, start + len(e) - 1)
            for start, e in zip(starts[:-1], examples, strict=True)
        ]
    )
    return MicroBatch(
        input_ids=torch.from_numpy(row)[None],
        position_ids=torch.from_numpy(np.concatenate([np.arange(n) for n in lengths]))[None],
        cu_seqlens=torch.from_numpy(starts.astype(np.int32)),
        lengths=tuple(lengths),
        target_positions=torch.from_numpy(targets),
        target_ids=torch.from_numpy(row[targets + 1]),
        weight=1.0,
        example_ids=tuple(e.id for e in examples),
    )


def empty_micro_batch(vocabulary_id: int = 0) -> MicroBatch:
    """Two tokens of weight 0, for a rank that has no example left: its collectives must match."""
    stand_in = TokenizedExample("(none)", np.full(2, vocabulary_id), 1)
    packed = pack([stand_in])
    return MicroBatch(
        **{**{f.name: getattr(packed, f.name) for f in fields(packed)}, "weight": 0.0}
    )


def micro_batches(
    batch: Sequence[TokenizedExample], rank_plan: Sequence[Sequence[int]]
) -> list[MicroBatch]:
    """One rank's micro-batches of a global batch.

    Args:
        batch: the examples of the global batch.
        rank_plan: positions in `batch` by micro-batch, one rank's entry of `split_global_batch`.
    """
    return [pack([batch[i] for i in part]) if part else empty_micro_batch() for part in rank_plan]
