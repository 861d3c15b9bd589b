"""Token losses at target positions. The (tokens x vocabulary) matrix never exists in full.

Shapes: `B` sequences, `T` positions, `N` target positions, `D` hidden size, `V` vocabulary.
The formulas are those of cross-entropy in nats: log p = logit - logsumexp, and the entropy
H = logsumexp - sum(p * logit), both from float32 logits.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHUNK_ELEMENTS = 2**25
"""float32 logits held at a time: 128 MiB, 220 tokens of Qwen2.5's vocabulary."""


class TokenScores(NamedTuple):
    """What the model gives each target token. All (N,) float32."""

    log_probs: Tensor
    """Natural logarithm of the probability of the target; carries the gradient."""
    entropy: Tensor
    """Of the whole next-token distribution, nats; no gradient."""
    correct: Tensor
    """1 where the most probable token is the target; no gradient."""


def compute_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of the distribution of each position: (..., V) -> (...)."""
    logits = logits.float()
    log_normalizer = torch.logsumexp(logits, dim=-1)
    return log_normalizer - (torch.softmax(logits, dim=-1) * logits).sum(dim=-1)


def token_log_probs(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of each label: (..., V) and (...) -> (...), float32."""
    logits = logits.float()
    chosen = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return chosen - torch.logsumexp(logits, dim=-1)


class LossHead(nn.Linear):
    """The language-model head, able to score targets chunk by chunk.

    Called with hidden states alone it is the linear layer it replaces. Scoring happens inside its
    `forward`, so that ZeRO-3 and FSDP2 gather the (tied) weight once for all chunks.
    """

    @classmethod
    def sharing(cls, head: nn.Linear) -> "LossHead":
        """A head with the very parameters of `head`; no tensor is copied."""
        with torch.device("meta"):
            shared = cls(head.in_features, head.out_features, bias=head.bias is not None)
        shared.weight, shared.bias = head.weight, head.bias
        return shared

    def forward(self, hidden: Tensor, target_ids: Tensor | None = None) -> Tensor | TokenScores:
        """Logits (..., V) of `hidden` (..., D); with `target_ids` (N,) the scores of those."""
        if target_ids is None:
            return super().forward(hidden)
        size = max(1, CHUNK_ELEMENTS // self.out_features)
        chunks = [
            # Recomputed in the backward pass: only the hidden states are kept.
            checkpoint(self._score, h, t, use_reentrant=False)
            for h, t in zip(hidden.split(size), target_ids.split(size), strict=True)
        ]
        return TokenScores(*(torch.cat(parts) for parts in zip(*chunks, strict=True)))

    def _score(self, hidden: Tensor, target_ids: Tensor) -> TokenScores:
        logits = super().forward(hidden).float()
        with torch.no_grad():
            entropy = compute_entropy(logits)
            correct = (logits.argmax(-1) == target_ids).float()
        return TokenScores(token_log_probs(logits, target_ids), entropy, correct)


def engine_loss_scale(
    *, global_target_tokens: int, averaged_over: int = 1, divided_by: int = 1
) -> float:
    """Factor on a micro-batch's summed loss that makes the update that of the global token mean.

    The one place that knows it. With `S` the sum of the token losses of a micro-batch, the gradient
    wanted is that of sum(S) / global_target_tokens over all micro-batches and ranks.

    Args:
        global_target_tokens: tokens with a loss in the whole global batch, over all ranks.
        averaged_over: ranks, where the engine averages gradients instead of summing them.
        divided_by: what else the engine divides the loss by (accumulation steps).
    """
    return averaged_over * divided_by / global_target_tokens
