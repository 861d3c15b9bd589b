"""The memory of a run: the estimate by part, what was measured, what there is."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sft_dist.config import TrainConfig, bytes_per_weight
from sft_dist.engines.ds_config import load_ds_config
from sft_dist.evaluation.engine_options import EngineOptions, architecture
from sft_dist.preflight_checks.findings import Finding, gib
from sft_dist.preflight_checks.longest import LongestBatch
from sft_dist.preflight_checks.memory_model import (
    MemoryEstimate,
    ModelShape,
    StepShape,
    estimate_memory,
)
from sft_dist.preflight_checks.probe import ProbeResult

TIGHT = 0.9
"""Share of the memory from which on a warning is due: fragmentation, libraries."""
VLLM_SHARE = 0.3
"""What vLLM takes beside training unless --eval_gpu_memory says otherwise."""
WORKER_LIBRARIES, WORKER_WEIGHTS = 0.6 * 2**30, 2.4
"""What a vLLM worker takes of a CPU host beside its cache: bytes of torch and vLLM, and the weights
so many times, since it packs them while those that were read are still there. The peaks of engines
for 0.5 M, 49 M and 630 M parameters in float32 were 0.69, 2.72 and 8.18 GiB (by this: 0.67, 2.29
and 8.23)."""
WORTH_COMPARING = 2**29
"""Bytes below which libraries, not the model, are what is measured."""
TRUST = 0.15
"""How far estimate and measurement may differ before that is said."""


def model_shape(model_dir: Path, *, compiled: bool) -> ModelShape:
    """The shape of a model, from its configuration alone; compiled layers are never lean."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        shape = ModelShape.of(
            AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_dir))
        )
    return replace(shape, lean=shape.lean and not compiled)


def step_shape(
    config: TrainConfig, model: ModelShape, longest: LongestBatch, *, world_size: int
) -> StepShape:
    """What the memory of the run's largest step depends on."""
    zero: dict[str, Any] = {}
    if config.engine.engine == "deepspeed":
        zero = load_ds_config(config.engine.ds_config).get("zero_optimization", {})
    cuda = torch.cuda.is_available()
    width = bytes_per_weight(config.model.dtype)
    return StepShape(
        engine=config.engine.engine,
        stage=zero.get("stage", 0),
        world_size=world_size,
        dtype=config.model.dtype,
        tokens=longest.tokens,
        target_tokens=longest.target_tokens,
        activation_checkpointing=config.model.activation_checkpointing,
        offload_optimizer="offload_optimizer" in zero,
        cuda=cuda,
        bucket=int(zero.get("reduce_bucket_size", 500_000_000)),
        gathered_whole=model.num_parameters * (width + 4) <= 0.25 * rank_memory(),
    )


def rank_memory() -> float:
    """Bytes that one rank may take at most, with nothing else there."""
    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory)
    found = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    assert found is not None
    return int(found[1]) * 1024 / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def worker_memory(config: TrainConfig, model_dir: Path, num_parameters: int) -> float:
    """Bytes of a CPU host that the evaluation beside training takes; 0 on a GPU, see VLLM_SHARE."""
    settings = config.evaluation
    if settings.eval_placement != "shared" or torch.cuda.is_available():
        return 0.0
    longest = config.data.max_seq_length + settings.generation_max_length
    options, model = EngineOptions(max_model_len=longest), architecture(model_dir)
    weights = num_parameters * bytes_per_weight(options.resolved_dtype(model))
    if settings.eval_backend == "hf":
        return WORKER_LIBRARIES + weights
    return WORKER_LIBRARIES + WORKER_WEIGHTS * weights + (options.cpu_cache_bytes(model) or 0)


def available_memory(config: TrainConfig, worker: float = 0.0) -> float:
    """Bytes that a rank has: the GPU less vLLM's share, or its part of the host's free memory.

    `worker` is what the evaluation takes of the host.
    """
    beside = config.evaluation.eval_placement == "shared"
    if torch.cuda.is_available():
        share = config.evaluation.eval_gpu_memory or VLLM_SHARE
        return rank_memory() * (1 - share if beside else 1.0)
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    assert found is not None
    free = int(found[1]) * 1024 - worker
    return free / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def memory_finding(
    estimate: MemoryEstimate,
    probed: Sequence[ProbeResult],
    available: float,
    longest: LongestBatch,
    worker: float = 0.0,
) -> Finding:
    """The estimate by part, against the probe where there is one, against what there is.

    `worker`: bytes of a CPU host that `available` leaves to the evaluation.
    """
    measured = max((p.peak for p in probed), default=0)
    peak = measured or estimate.peak
    parts = ", ".join(f"{name} {gib(size)}" for name, size in estimate.parts.items() if size)
    lines = [
        f"{gib(peak)} of {gib(available)} a rank, {'measured' if measured else 'estimated'}, "
        f"micro-batch of {longest.tokens} tokens",
        f"estimate {gib(estimate.peak)}, fullest at the {estimate.fullest}: {parts}",
    ]
    if worker:
        lines.append(f"{gib(worker)} of this host are set aside for the evaluation worker")
    level = "ok"
    if measured:
        off = estimate.peak / measured - 1
        small = measured < WORTH_COMPARING
        lines.append(
            "too little to compare with the estimate: libraries are most of it"
            if small
            else f"the estimate is off by {off:+.0%}"
        )
        level = "note" if abs(off) > TRUST and not small else "ok"
    if peak > TIGHT * available:
        lines.append(
            "lower --max_tokens_per_microbatch, or --activation_checkpointing, a higher ZeRO "
            "stage, more ranks, --eval_placement after"
        )
        level = "no-go" if peak > available else "warning"
    return Finding("memory", level, "\n".join(lines))  # type: ignore[arg-type]


def memory_table(model: ModelShape, config: TrainConfig, longest: LongestBatch) -> Finding:
    """The estimate of other engines, stages and numbers of ranks, for whom it does not fit."""
    lines = ["estimated peak a rank:   1 rank     8 ranks    64 ranks"]
    kinds = [("torch", 0, "torch"), ("deepspeed", 1, "ZeRO-1"), ("deepspeed", 2, "ZeRO-2"),
             ("deepspeed", 3, "ZeRO-3"), ("fsdp", 0, "FSDP2")]  # fmt: skip
    base = step_shape(config, model, longest, world_size=1)
    for engine, stage, name in kinds:
        sizes = []
        for world_size in (1, 8, 64):
            step = StepShape(
                **{**vars(base), "engine": engine, "stage": stage, "world_size": world_size,
                   "offload_optimizer": False, "bucket": base.bucket or 100_000_000}
            )  # fmt: skip
            sizes.append(f"{gib(estimate_memory(model, step).peak):>11}")
        lines.append(f"{name:21}{''.join(sizes)}")
    return Finding("memory table", "note", "\n".join(lines))
