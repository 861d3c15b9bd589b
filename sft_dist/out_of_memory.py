"""Memory that ran out: how it shows, in which micro-batch, and what to lower."""

import torch

from sft_dist.config import TrainConfig
from sft_dist.data.packing import MicroBatch

SHOWN = 8
"""Examples of a micro-batch that a message names; the longest come first."""

SHARDED_MORE = {"zero0": "zero1", "zero1": "zero2", "zero2": "zero3"}
"""By name in ds_configs/: what takes less memory of a rank."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator said so: CUDA's, Python's, or torch's on a CPU, which has no type."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def describe_micro_batch(batch: MicroBatch) -> str:
    """Its size, and its examples with their lengths."""
    pairs = sorted(zip(batch.lengths, batch.example_ids, strict=True), reverse=True)
    named = ", ".join(f"{name} ({length})" for length, name in pairs[:SHOWN])
    more = f" and {len(pairs) - SHOWN} shorter ones" if len(pairs) > SHOWN else ""
    return (
        f"a micro-batch of {len(pairs)} examples, {batch.input_ids.numel()} places, "
        f"{batch.num_target_tokens} target tokens: {named}{more}"
    )


def memory_advice(config: TrainConfig) -> str:
    """What to change, what helps most with least harm first."""
    budget = config.max_tokens_per_microbatch()
    advice = []
    if budget > config.data.max_seq_length:
        half = max(budget // 2, config.data.max_seq_length)
        advice.append(f"--max_tokens_per_microbatch {half} (now {budget}; same result)")
    if not config.model.activation_checkpointing:
        advice.append("--activation_checkpointing (same result, slower)")
    if config.engine.engine == "torch":
        advice.append("--engine deepspeed on several ranks, which share the state")
    elif config.engine.engine == "deepspeed" and config.engine.ds_config in SHARDED_MORE:
        advice.append(f"--ds_config {SHARDED_MORE[config.engine.ds_config]}")
    if config.evaluation.eval_placement == "shared":
        advice.append("--eval_placement after (evaluation takes memory beside training)")
    if config.checkpoint.async_save and not torch.cuda.is_available():
        advice.append("--no_async_save (no copy of the state)")
    advice.append("more ranks, or a smaller --max_seq_length")
    return "what lowers it: " + "; ".join(advice)
