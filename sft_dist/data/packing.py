"""Examples -> one packed row without padding, or the padded rows of a plain batch.

Shapes: `T` tokens of a row, `B` rows (1 when packed), `E` examples, `N` target tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from sft_dist.data.tokenization import TokenizedExample
from sft_dist.normalization import LossNormalization

TOKEN_MEAN = LossNormalization()


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass of one rank reads."""

    input_ids: Tensor
    """(B, T) int64."""
    position_ids: Tensor
    """(B, T) int64; they restart at 0 with each example."""
    cu_seqlens: Tensor | None
    """(E + 1,) int32: where each example of the packed row starts, and T. None: padded rows."""
    lengths: tuple[int, ...]
    """(E,) tokens of each example; on the host, so that no kernel waits for them."""
    target_positions: Tensor
    """(N,) int64: positions in the flattened rows whose next token has a loss."""
    target_ids: Tensor
    """(N,) int64: those next tokens."""
    target_weights: Tensor
    """(N,) float32: what each counts in the loss, see `LossNormalization`."""
    example_ids: tuple[str, ...]
    is_stand_in: bool = False
    """For a rank without examples: it runs, and counts for nothing."""

    @property
    def num_tokens(self) -> int:
        """Tokens of real examples."""
        return 0 if self.is_stand_in else sum(self.lengths)

    @property
    def num_target_tokens(self) -> int:
        """Tokens with a loss."""
        return 0 if self.is_stand_in else self.target_ids.shape[0]

    def to(self, device: torch.device) -> "MicroBatch":
        """The same micro-batch with its tensors on `device`."""
        moved = {
            f.name: value.to(device, non_blocking=True)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)


def pack(
    examples: Sequence[TokenizedExample], normalization: LossNormalization = TOKEN_MEAN
) -> MicroBatch:
    """Concatenate examples into one row."""
    lengths = [len(e) for e in examples]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    row = np.concatenate([e.input_ids for e in examples])
    return MicroBatch(
        input_ids=torch.from_numpy(row)[None],
        position_ids=torch.from_numpy(np.concatenate([np.arange(n) for n in lengths]))[None],
        cu_seqlens=torch.from_numpy(starts.astype(np.int32)),
        lengths=tuple(lengths),
        example_ids=tuple(e.id for e in examples),
        **_targets(examples, starts[:-1], row, normalization),
    )


def pad(
    examples: Sequence[TokenizedExample], normalization: LossNormalization = TOKEN_MEAN
) -> MicroBatch:
    """One row for each example, filled up behind to the longest: the plain way, to compare with.

    Nothing attends to the padding (attention is causal), and it has no loss.
    """
    lengths = [len(e) for e in examples]
    width = max(lengths)
    rows = np.stack([np.pad(e.input_ids, (0, width - len(e))) for e in examples])
    starts = width * np.arange(len(examples))
    return MicroBatch(
        input_ids=torch.from_numpy(rows),
        position_ids=torch.arange(width).expand(len(examples), width),
        cu_seqlens=None,
        lengths=tuple(lengths),
        example_ids=tuple(e.id for e in examples),
        **_targets(examples, starts, rows.reshape(-1), normalization),
    )


def _targets(
    examples: Sequence[TokenizedExample],
    starts: np.ndarray,
    flat_ids: np.ndarray,
    normalization: LossNormalization,
) -> dict[str, Tensor]:
    """Where the losses are, of what, and with which weight.

    The logits at position `p` predict the token at `p + 1`, so an example of `T` tokens with a
    prompt of `P` has its losses at positions `P - 1 ... T - 2` of its stretch of the row.
    """
    positions = [
        np.arange(start + max(e.prompt_length, 1) - 1, start + len(e) - 1)
        for start, e in zip(starts, examples, strict=True)
    ]
    weights = [np.full(len(p), normalization.token_weight(len(p)), np.float32) for p in positions]
    flat = np.concatenate(positions)
    return {
        "target_positions": torch.from_numpy(flat),
        "target_ids": torch.from_numpy(flat_ids[flat + 1]),
        "target_weights": torch.from_numpy(np.concatenate(weights)),
    }


def empty_micro_batch() -> MicroBatch:
    """Two tokens of weight 0, for a rank that has no example left: its collectives must match."""
    packed = pack([TokenizedExample("(none)", np.zeros(2, dtype=np.int64), 1)])
    return replace(packed, target_weights=torch.zeros_like(packed.target_weights), is_stand_in=True)


def micro_batches(
    batch: Sequence[TokenizedExample],
    rank_plan: Sequence[Sequence[int]],
    *,
    normalization: LossNormalization = TOKEN_MEAN,
    packing: bool = True,
) -> list[MicroBatch]:
    """One rank's micro-batches of a global batch, each with its examples in order of length.

    Args:
        batch: the examples of the global batch.
        rank_plan: positions in `batch` by micro-batch, one rank's entry of `split_global_batch`.
        normalization: gives the weight of each token.
        packing: one row without padding; else padded rows.
    """
    join = pack if packing else pad
    # In order of length: examples of one length are then neighbours, see `per_example_sdpa`.
    parts = [sorted((batch[i] for i in part), key=len) for part in rank_plan]
    return [join(part, normalization) if part else empty_micro_batch() for part in parts]
