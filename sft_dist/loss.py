"""Token losses at target positions. The (tokens x vocabulary) matrix never exists in full.

Shapes: `B` sequences, `T` positions, `N` target positions, `D` hidden size, `V` vocabulary.
The formulas are those of cross-entropy in nats: log p = logit - logsumexp, and the entropy
H = logsumexp - sum(p * logit), both from float32 logits.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = 2**25
"""float32 logits held at a time: 128 MiB, 220 tokens of Qwen2.5's vocabulary."""


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
            chunk = _ChunkScores(hidden[part], weight, bias, target_ids[part])
            chunks.append((chunk.log_probs, chunk.entropy, chunk.correct))
            if gradients is not None:
                gradients.add(part, chunk.logit_gradient(target_weights[part]))
            del chunk  # its logits, before those of the next are made
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


class _ChunkScores:
    """Scores of one chunk of `n` tokens, and what their gradient needs."""

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, target_ids: Tensor
    ) -> None:
        logits = nn.functional.linear(hidden, weight, bias)
        self.logits_dtype = logits.dtype
        logits = logits.float()
        top, index = logits.max(-1)
        self.target_ids = target_ids
        chosen = logits.gather(-1, target_ids[:, None])[:, 0] - top
        logits -= top[:, None]
        self.exponentials = logits.exp()
        self.total = self.exponentials.sum(-1)
        log_total = self.total.log()
        # bmm: sum(exp * logit) row by row without another (n, V) tensor
        expected = torch.bmm(self.exponentials[:, None], logits[:, :, None])[:, 0, 0] / self.total
        self.log_probs = chosen - log_total
        self.entropy = log_total - expected
        self.correct = (index == target_ids).float()

    def logit_gradient(self, weights: Tensor) -> Tensor:
        """(n, V) in the dtype of the logits: weight x (softmax - one-hot). Called once."""
        gradient = self.exponentials.mul_((weights / self.total)[:, None])
        gradient.scatter_add_(-1, self.target_ids[:, None], -weights[:, None])
        return gradient.to(self.logits_dtype)


class _HeadGradients:
    """Gradients of hidden states, weight and bias, added up over the chunks."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        self._hidden, self._weight, self._bias = hidden, weight, bias
        self.of_hidden = torch.empty_like(hidden)
        # float32: a sum over chunks in bf16 would lose what is small beside the sum.
        self.of_weight = torch.zeros_like(weight, dtype=torch.float32)
        self.of_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)

    def add(self, part: slice, logit_gradient: Tensor) -> None:
        """Count one chunk: `logit_gradient` (n, V) of the hidden states in `part`."""
        torch.mm(logit_gradient, self._weight, out=self.of_hidden[part])
        if self.of_weight.dtype == logit_gradient.dtype:
            self.of_weight.addmm_(logit_gradient.t(), self._hidden[part])
        else:
            self.of_weight += logit_gradient.t() @ self._hidden[part]
        if self.of_bias is not None:
            self.of_bias += logit_gradient.sum(0)

    def scaled(self, factor: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The three gradients times `factor`, in the types of what they belong to."""
        of_weight = self.of_weight.mul_(factor).to(self._weight.dtype)
        of_bias = None if self._bias is None else (self.of_bias * factor).to(self._bias.dtype)
        return self.of_hidden.mul_(factor), of_weight, of_bias
