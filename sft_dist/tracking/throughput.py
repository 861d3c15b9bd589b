"""Tokens per second, what of the computation was of use, and model FLOP utilisation."""

from collections.abc import Sequence
from typing import Any

# Dense bf16 peak in FLOP/s. Source: NVIDIA's data sheets (the figures without sparsity).
PEAK_FLOPS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "B200": 2250e12,
}


def performance_row(
    lengths: Sequence[int],
    computed_tokens: Sequence[Sequence[int]],
    *,
    seconds: float,
    data_wait_seconds: float,
) -> dict[str, float]:
    """The `perf/` metrics of a step that any device has.

    Args:
        lengths: tokens of each example of the global batch.
        computed_tokens: by rank and micro-batch, padding and stand-ins with them.
        seconds: wall time of the step.
        data_wait_seconds: the part of it that the step waited for its batch.
    """
    tokens, loads = sum(lengths), [sum(rank) for rank in computed_tokens]
    return {
        "perf/step_seconds": seconds,
        "perf/data_wait_seconds": data_wait_seconds,
        "perf/tokens_per_second": tokens / seconds,
        "perf/useful_token_share": tokens / sum(loads),
        "perf/rank_imbalance": max(loads) * len(loads) / sum(loads),
    }


def peak_flops(device_name: str) -> float | None:
    """bf16 peak of a GPU by its name, FLOP/s; None when it is not in the table."""
    return next((peak for name, peak in PEAK_FLOPS.items() if _named(name, device_name)), None)


def _named(name: str, device_name: str) -> bool:
    words = device_name.replace("-", " ").split()
    return all(word in words for word in name.split())


def step_flops(config: Any, num_parameters: int, lengths: Sequence[int]) -> float:
    """FLOP of forward and backward over packed examples; recomputation is not counted.

    6 per parameter and token (Kaplan et al. 2020, arXiv 2001.08361, section 2.1; the tied head
    counts once, as the embedding look-up is free), and 6 x layers x hidden x T^2 of causal
    attention per example of T tokens (half of PaLM's 12, arXiv 2204.02311, appendix B).
    """
    attention = 6 * config.num_hidden_layers * config.hidden_size * sum(n * n for n in lengths)
    return 6.0 * num_parameters * sum(lengths) + attention
