"""The functions that courses and papers of this field call by name.

Signatures and semantics: Stanford CS336, assignment 5 (handout v1.0.2, sections 4.2 and 5). The
training loop shares their kernels (`loss.py`), not `sft_microbatch_train_step`'s normalisation.

Shapes: `B` sequences, `T` tokens of the longest prompt and output together.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sft_dist.data.tokenization import token_ids
from sft_dist.loss import compute_entropy, token_log_probs


def tokenize_prompt_and_output(
    prompt_strs: Sequence[str], output_strs: Sequence[str], tokenizer: Any
) -> dict[str, Tensor]:
    """Tokenise prompts and outputs apart, join them, pad on the right, shift by one.

    Returns:
        `input_ids` (B, T-1), `labels` (B, T-1, the same ids one to the left) and `response_mask`
        (B, T-1, True where the label is a token of the output).

    Raises:
        ValueError: when there are not as many outputs as prompts, or none.
    """
    if len(prompt_strs) != len(output_strs) or not prompt_strs:
        raise ValueError(
            f"expected as many outputs as prompts, at least one; found {len(prompt_strs)} prompts "
            f"and {len(output_strs)} outputs"
        )
    prompts, outputs = token_ids(tokenizer, prompt_strs), token_ids(tokenizer, output_strs)
    longest = max(len(p) + len(o) for p, o in zip(prompts, outputs, strict=True))
    pad = tokenizer.pad_token_id
    if pad is None:
        pad = tokenizer.eos_token_id or 0
    ids = torch.full((len(prompts), longest), pad, dtype=torch.long)
    is_output = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for row, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
        end = len(prompt) + len(output)
        ids[row, :end] = torch.tensor([*prompt, *output])
        is_output[row, len(prompt) : end] = True
    return {"input_ids": ids[:, :-1], "labels": ids[:, 1:], "response_mask": is_output[:, 1:]}


def get_response_log_probs(
    model: nn.Module, input_ids: Tensor, labels: Tensor, return_token_entropy: bool = False
) -> dict[str, Tensor]:
    """What a causal LM thinks of each label.

    Args:
        model: called with `input_ids` (B, T-1), its result has `logits` (B, T-1, V).
        input_ids: (B, T-1).
        labels: (B, T-1).
        return_token_entropy: add `token_entropy`.

    Returns:
        `log_probs` (B, T-1), nats, with the gradient of the model; `token_entropy` (B, T-1), nats.
    """
    logits = model(input_ids).logits
    scores = {"log_probs": token_log_probs(logits, labels)}
    if return_token_entropy:
        scores["token_entropy"] = compute_entropy(logits)
    return scores


def masked_normalize(
    tensor: Tensor, mask: Tensor, normalize_constant: float, dim: int | None = None
) -> Tensor:
    """Sum of `tensor` where `mask` is true, over `dim` (None: all of it), over a constant."""
    masked = torch.where(mask.bool(), tensor, torch.zeros_like(tensor))
    return (masked.sum() if dim is None else masked.sum(dim)) / normalize_constant


def sft_microbatch_train_step(
    policy_log_probs: Tensor,
    response_mask: Tensor,
    gradient_accumulation_steps: int,
    normalize_constant: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Backward of one micro-batch of negative log-likelihood; mean over sequences, as in CS336.

    Args:
        policy_log_probs: (B, T-1), with gradient.
        response_mask: (B, T-1).
        gradient_accumulation_steps: micro-batches whose gradients add up to one update.
        normalize_constant: divides each sequence's sum.

    Returns:
        The loss that was differentiated (a detached scalar), and numbers to log: the sum of the
        token losses and their count.
    """
    per_sequence = masked_normalize(-policy_log_probs, response_mask, normalize_constant, dim=-1)
    loss = per_sequence.mean() / gradient_accumulation_steps
    loss.backward()
    metadata = {
        "loss_sum": masked_normalize(-policy_log_probs.detach(), response_mask, 1.0),
        "num_response_tokens": response_mask.sum(),
    }
    return loss.detach(), metadata
