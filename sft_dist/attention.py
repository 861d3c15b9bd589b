"""Attention that stays inside each example of a packed row, behind one name.

`--attention` names a kernel; transformers calls what is registered under it here. Shapes as
transformers gives them: query (B, H, T, d), key and value (B, G, T, d) -> (B, T, H, d).
"""

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from sft_dist.data.packing import MicroBatch

PER_EXAMPLE_SDPA = "sft_per_example_sdpa"
TORCH_VARLEN = "sft_torch_varlen"
REGISTERED = {"sdpa": PER_EXAMPLE_SDPA, "torch_varlen": TORCH_VARLEN}
"""Name of the flag -> name known to transformers, where they differ."""


def resolve_attention(requested: str, *, cuda: bool, flash_attn_installed: bool) -> tuple[str, str]:
    """The attention kernel to use, and why, in words."""
    if requested != "auto":
        return requested, "asked for"
    if cuda and flash_attn_installed:
        return "flash_attention_2", "CUDA and flash-attn are there"
    if cuda:
        return "torch_varlen", "CUDA, and flash-attn is not installed; torch's own kernel"
    return "sdpa", "no CUDA device; per example, so nothing is computed across examples"


def register_attentions() -> None:
    """Make the names of `REGISTERED` known to transformers. Neither wants a mask."""
    from transformers import AttentionInterface, AttentionMaskInterface

    for name, function in ((PER_EXAMPLE_SDPA, per_example_sdpa), (TORCH_VARLEN, torch_varlen)):
        AttentionInterface.register(name, function)
        AttentionMaskInterface.register(name, lambda *args, **kwargs: None)


def attention_arguments(implementation: str, batch: MicroBatch) -> dict[str, Any]:
    """What the kernel is told about the examples of a micro-batch, by keyword.

    Padded rows need nothing: attention is causal and the padding stands behind every real token.
    """
    if batch.cu_seqlens is None:
        return {}
    arguments: dict[str, Any] = {
        "cu_seq_lens_q": batch.cu_seqlens,
        "cu_seq_lens_k": batch.cu_seqlens,
        "max_length_q": max(batch.lengths),
        "max_length_k": max(batch.lengths),
    }
    if implementation == PER_EXAMPLE_SDPA:
        arguments["example_lengths"] = batch.lengths
    return arguments


@torch.compiler.disable  # the lengths are Python numbers: each batch would be compiled anew
def per_example_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    example_lengths: tuple[int, ...] | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Causal attention of each example of a packed row (B = 1) alone, or of padded rows.

    A mask over the row would cost T^2; this costs the sum of the squares. Neighbours of one length
    are computed together.
    """
    if (groups := query.shape[1] // key.shape[1]) > 1:
        # Repeated by hand: with enable_gqa torch 2.13 leaves its CPU flash kernel.
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if example_lengths is None:
        return _causal(query, key, value, scaling).transpose(1, 2), None
    runs = [(length, len(list(same))) for length, same in itertools.groupby(example_lengths)]
    sizes = [length * count for length, count in runs]
    stretches = zip(*(x[0].split(sizes, 1) for x in (query, key, value)), strict=True)
    parts = []
    for (length, count), stretch in zip(runs, stretches, strict=True):
        q, k, v = (x.unflatten(1, (count, length)).transpose(0, 1) for x in stretch)
        parts.append(
            _causal(q, k, v, scaling).transpose(1, 2).flatten(0, 1)
        )  # (count x length, H, d)
    return torch.cat(parts)[None], None


def _causal(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    return nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling
    )


def torch_varlen(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """The same by torch's own variable-length kernel (CUDA; torch 2.13's signature)."""
    if cu_seq_lens_q is None or max_length_q is None:
        return per_example_sdpa(module, query, key, value, attention_mask, scaling=scaling)
    from torch.nn.attention.varlen import varlen_attn

    rows = (x[0].transpose(0, 1) for x in (query, key, value))
    out = varlen_attn(
        *rows,
        cu_seq_lens_q,
        cu_seq_lens_q,
        max_length_q,
        max_length_q,
        scale=scaling,
        window_size=(-1, 0),  # causal
        enable_gqa=True,
    )
    return out[None], None
