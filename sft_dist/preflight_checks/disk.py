"""Whether the disk holds what the run's checkpoints will take."""

import math
import shutil
from pathlib import Path

from sft_dist.config import TrainConfig, bytes_per_weight
from sft_dist.data.sampler import BatchPlan
from sft_dist.paths import existing_parent
from sft_dist.preflight_checks.findings import Finding, gib

MASTER_AND_MOMENTS = 12
"""Bytes a parameter of a checkpoint's optimizer state: three float32."""
ROOM = 1.2
"""Below this multiple of what is needed a warning is due: logs, wandb, completions."""


def checkpoint_bytes(num_parameters: int, dtype: str) -> int:
    """One checkpoint: weights and optimizer state."""
    return num_parameters * (bytes_per_weight(dtype) + MASTER_AND_MOMENTS)


def kept_checkpoints(config: TrainConfig, plan: BatchPlan) -> int:
    """The most that are on the disk at a time: those kept, the best, the one being written."""
    saves = {step for step in range(1, plan.total_steps + 1) if plan.is_epoch_end(step)}
    saves |= set(
        range(config.checkpoint.save_steps, plan.total_steps, config.checkpoint.save_steps)
    )
    saves.add(plan.total_steps)
    keep = config.checkpoint.keep_last_n_checkpoints
    return len(saves) if keep == 0 else min(len(saves), keep + 2)


def disk_finding(config: TrainConfig, plan: BatchPlan, num_parameters: int) -> Finding:
    """Space needed against space free where the run directory will be."""
    one = checkpoint_bytes(num_parameters, config.model.dtype)
    count = kept_checkpoints(config, plan)
    needed = one * count
    place = existing_parent(Path(config.checkpoint.output_dir or "outputs"))
    free = shutil.disk_usage(place).free
    text = f"{gib(free)} free at {place}; {count} checkpoints of {gib(one)} take {gib(needed)}"
    if free < needed:
        fits = math.floor(free / one) - 2
        advice = f"--keep_last_n_checkpoints {fits}" if fits > 0 else "another --output_dir"
        return Finding("disk", "no-go", f"{text}; take {advice}")
    return Finding("disk", "warning" if free < ROOM * needed else "ok", text)
