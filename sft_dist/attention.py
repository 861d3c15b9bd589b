"""Attention that stays inside each example of a packed row, behind one name.

`--attention` names a kernel; transformers calls what is registered under it here. Shapes as
transformers gives them: query (B, H, T, d), key and value (B, G, T, d) -> (B, T, H, d).
"""

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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
    # Not x[0], whose gradient is a whole tensor of zeros that is then written to.
    rows = [x.squeeze(0).transpose(0, 1) for x in (query, key, value)]
    if query.is_cpu:
        return _CausalExamples.apply(*rows, runs, scaling)[None], None
    parts = zip(*(_split(x, runs) for x in rows), strict=True)
    return torch.cat([_joined(_causal(q, k, v, scaling)) for q, k, v in parts])[None], None


def _causal(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    return nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling
    )


class _CausalExamples(torch.autograd.Function):
    """Causal attention of each example in a row: query, key and value (T, H, d) -> (T, H, d).

    `runs` are (length, how many) of neighbours of one length. The kernels are those that
    `scaled_dot_product_attention` takes on a CPU (torch 2.13, native/transformers/attention.cpp).
    Called here, they are not followed by autograd through a dozen views of each run, a sixth of
    attention's time for the demo's lengths, and their output is kept once, as read by the next.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, runs: list[tuple[int, int]],
        scaling: float | None,
    ) -> Tensor:  # fmt: skip
        attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        outputs = [
            attend(*run, is_causal=True, scale=scaling)
            for run in zip(*(_split(x, runs) for x in (query, key, value)), strict=True)
        ]
        mixed = torch.cat([_joined(output) for output, _ in outputs])
        ctx.save_for_backward(query, key, value, mixed, *(normalizer for _, normalizer in outputs))
        ctx.runs, ctx.scaling = runs, scaling
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        attend_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        query, key, value, mixed, *normalizers = ctx.saved_tensors
        # In bfloat16 the kernel takes up to ten times as long for examples of under 1,000 tokens.
        wide = torch.promote_types(query.dtype, torch.float32)
        rows = (_split(x.to(wide), ctx.runs) for x in (gradient, query, key, value, mixed))
        gradients = [
            attend_backward(*run, dropout_p=0.0, is_causal=True, scale=ctx.scaling)
            for run in zip(*rows, normalizers, strict=True)
        ]
        of_rows = (torch.cat([_joined(x) for x in parts]) for parts in zip(*gradients, strict=True))
        return *(x.to(query.dtype) for x in of_rows), None, None


def _split(row: Tensor, runs: list[tuple[int, int]]) -> list[Tensor]:
    """(T, H, d) -> of each run (count, H, length, d), without a copy."""
    stretches = row.split([length * count for length, count in runs])
    return [
        stretch.view(count, length, *row.shape[1:]).transpose(1, 2)
        for stretch, (length, count) in zip(stretches, runs, strict=True)
    ]


def _joined(run: Tensor) -> Tensor:
    """(count, H, length, d) -> (count x length, H, d)."""
    return run.transpose(1, 2).flatten(0, 1)


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

    rows = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))
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
