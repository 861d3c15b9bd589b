"""Token losses at target positions. The (tokens x vocabulary) matrix never exists in full.

Shapes: `B` sequences, `T` positions, `N` target positions, `D` hidden size, `V` vocabulary.
The formulas are those of cross-entropy in nats: log p = logit - logsumexp, and the entropy
H = logsumexp - sum(p * logit), both from float32 logits.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = 2**26
"""Logits held at a time: 128 MiB in bf16, 441 tokens of Qwen2.5's vocabulary."""
CPU_BLOCK_ELEMENTS = 2**16
"""Logits turned to float32 at a time on a CPU, but a row for each thread at least: 256 KiB, so that
what is made of them stays in a core's cache."""
CPU_HEAD_ROWS = 4096
"""Rows of the head's gradient computed and added at a time on a CPU. One product of all rows, and
its float32 copy, would be fetched from fresh memory: 0.56 s against 0.36 s for 441 tokens of a
0.5B model, and 0.8 GiB."""


class TokenScores(NamedTuple):
    """What the model makes of the target tokens, float32. Only `loss` carries a gradient."""

    loss: Tensor
    """() weighted sum of the token losses, nats."""
    log_probs: Tensor
    """(N,) natural logarithm of the probability of each target."""
    entropy: Tensor
    """(N,) of the whole next-token distribution, nats."""
    correct: Tensor
    """(N,) 1 where the most probable token is the target."""


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

    def forward(
        self,
        hidden: Tensor,
        target_ids: Tensor | None = None,
        target_weights: Tensor | None = None,
    ) -> Tensor | TokenScores:
        """Logits (..., V) of `hidden` (..., D); with `target_ids` (N,) the scores of those.

        Args:
            hidden: (..., D), or (N, D) with `target_ids`.
            target_ids: (N,) int64.
            target_weights: (N,) float32, of each token in the loss; ones when left out.
        """
        if target_ids is None:
            return super().forward(hidden)
        if target_weights is None:
            target_weights = torch.ones_like(target_ids, dtype=torch.float32)
        scores = _ChunkedLoss.apply(
            hidden, self.weight, self.bias, target_ids, target_weights, torch.is_grad_enabled()
        )
        return TokenScores(*scores)


class _ChunkedLoss(torch.autograd.Function):
    """Projection and cross-entropy, chunk by chunk, with the gradient taken on the way.

    d loss / d logits = weight x (softmax - one-hot) is known as soon as a chunk's logits are, and
    the loss is one number, so what comes back later is a factor. Nothing is projected twice, where
    recomputing each chunk in the backward pass would cost one projection in four.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target_ids: Tensor,
        target_weights: Tensor,
        with_gradient: bool,
    ) -> tuple[Tensor, ...]:
        gradients = _HeadGradients(hidden, weight, bias) if with_gradient else None
        size = max(1, CHUNK_ELEMENTS // weight.shape[0])
        chunks = []
        for start in range(0, len(hidden), size):
            part = slice(start, start + size)
            logits = nn.functional.linear(hidden[part], weight, bias)
            weights = target_weights[part] if with_gradient else None
            chunks.append(_score(logits, target_ids[part], weights))
            if gradients is not None:
                gradients.add(part, logits, hidden, weight)  # the logits' gradient by now
            del logits  # before those of the next chunk are made
        log_probs, entropy, correct = (torch.cat(parts) for parts in zip(*chunks, strict=True))
        ctx.mark_non_differentiable(log_probs, entropy, correct)
        ctx.gradients = gradients
        return -(target_weights * log_probs).sum(), log_probs, entropy, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("the loss of a chunked head can be differentiated once")
        return *gradients.scaled(factor), None, None, None


def _score(logits: Tensor, target_ids: Tensor, weights: Tensor | None) -> tuple[Tensor, ...]:
    """Log-probabilities, entropies and hits of a chunk of `n` tokens, each (n,) float32.

    The logits (n, V) are used up; with `weights` (n,) the gradient of the weighted loss is left in
    their place. In blocks of rows, since float32 copies are made of them.
    """
    size = len(logits)
    if logits.device.type == "cpu":
        size = max(torch.get_num_threads(), CPU_BLOCK_ELEMENTS // logits.shape[1])
    scores = []
    for start in range(0, len(logits), size):
        block = slice(start, start + size)
        block_weights = None if weights is None else weights[block]
        scores.append(_score_block(logits[block], target_ids[block], block_weights))
    return tuple(torch.cat(parts) for parts in zip(*scores, strict=True))


def _score_block(logits: Tensor, target_ids: Tensor, weights: Tensor | None) -> tuple[Tensor, ...]:
    """Few passes over (n, V), and those by torch's fastest kernels.

    On a CPU softmax is faster than exp alone, a plain maximum than one with its index, and a sum of
    products than bmm (torch 2.13; together a third of the time of the obvious form).
    """
    shifted = logits.float()
    shifted -= shifted.amax(-1)[:, None]
    chosen = shifted.gather(-1, target_ids[:, None])[:, 0]
    probabilities = shifted.softmax(-1)
    # The most probable token has logit 0 here, and a probability that never underflows.
    log_normalizer = -probabilities.amax(-1).log()
    entropy = log_normalizer - (probabilities * shifted).sum(-1)
    if weights is not None:  # weight x (softmax - one-hot)
        probabilities *= weights[:, None]
        probabilities.scatter_add_(-1, target_ids[:, None], -weights[:, None])
        logits.copy_(probabilities)
    return chosen - log_normalizer, entropy, (chosen == 0).float()


class _HeadGradients:
    """Gradients of hidden states, weight and bias, chunk by chunk."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        self._dtype = weight.dtype
        self._of_hidden = torch.empty_like(hidden)
        # float32: a sum over chunks in bf16 would lose what is small beside the sum.
        self._of_weight: Tensor | None = None
        self._of_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)

    def add(self, part: slice, logit_gradient: Tensor, hidden: Tensor, weight: Tensor) -> None:
        """Count one chunk: `logit_gradient` (n, V) of the logits of `hidden[part]`."""
        torch.mm(logit_gradient, weight, out=self._of_hidden[part])
        self._add_to_weight(logit_gradient, hidden[part])
        if self._of_bias is not None:
            self._of_bias += logit_gradient.sum(0)

    def _add_to_weight(self, logit_gradient: Tensor, hidden: Tensor) -> None:
        vocabulary, is_first = logit_gradient.shape[1], self._of_weight is None
        if self._of_weight is None:
            self._of_weight = hidden.new_empty(vocabulary, hidden.shape[1], dtype=torch.float32)
        size = CPU_HEAD_ROWS if hidden.device.type == "cpu" else vocabulary
        for total, part in zip(
            self._of_weight.split(size), logit_gradient.split(size, dim=1), strict=True
        ):
            if hidden.dtype == torch.float32:
                total.addmm_(part.t(), hidden, beta=0 if is_first else 1)
            elif is_first:
                total.copy_(part.t() @ hidden)
            else:
                total += part.t() @ hidden

    def scaled(self, factor: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The three times `factor`, in the type of the parameters."""
        assert self._of_weight is not None
        of_bias = None if self._of_bias is None else (self._of_bias * factor).to(self._dtype)
        of_weight = self._of_weight.mul_(factor).to(self._dtype)
        return self._of_hidden.mul_(factor), of_weight, of_bias
