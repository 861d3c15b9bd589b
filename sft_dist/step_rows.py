"""What a step of training leaves in `metrics.jsonl`: from what the engine and the clock say."""

from pathlib import Path
from typing import Any, Protocol

import torch

from sft_dist.config import TrainConfig
from sft_dist.data.prefetch import StepBatch
from sft_dist.data.sampler import BatchPlan
from sft_dist.engines.protocol import StepResult
from sft_dist.runtime.distributed import Ranks
from sft_dist.tracking.memory import peak_memory_gib
from sft_dist.tracking.throughput import peak_flops, performance_row, step_flops
from sft_dist.train_state import TrainState


class StepRows:
    """Makes the rows of one run. No collective: a step's sums are those of all ranks already."""

    def __init__(
        self,
        config: TrainConfig,
        plan: BatchPlan,
        *,
        model_dir: Path,
        num_parameters: int,
        ranks: Ranks,
    ) -> None:
        self._clip, self._plan = config.optimizer.max_grad_norm, plan
        self._model, self._num_parameters = _model_shape(model_dir), num_parameters
        self._device, self._peak_flops = ranks.device, peak_flops_of(ranks)

    def learning(
        self, state: TrainState, result: StepResult, batch: StepBatch, learning_rate: float
    ) -> dict[str, Any]:
        """Counts of the step that led to `state`, and unless it was skipped, loss and gradient."""
        tokens, norm = batch.num_target_tokens, result.grad_norm_preclip
        row = {
            "step": state.step,
            "train/step": state.step,
            "train/epoch": state.step / self._plan.steps_per_epoch,
            "train/learning_rate": learning_rate,
            "train/examples": len(batch.examples),
            "train/target_tokens": tokens,
        }
        if not result.applied:
            return row | {"train/skipped": 1}
        return row | {
            "train/loss": result.loss_sum / tokens,
            "train/objective": result.objective_sum / batch.normalizer,
            "train/token_entropy": result.entropy_sum / tokens,
            "train/token_accuracy": result.num_correct / tokens,
            "train/grad_norm": min(norm, self._clip) if self._clip else norm,
            "train/grad_norm_preclip": norm,
        }

    def performance(self, batch: StepBatch, *, seconds: float, waited: float) -> dict[str, float]:
        """The `perf/` metrics of a step of `seconds`, of which it `waited` for its batch."""
        lengths = [len(example) for example in batch.examples]
        row = performance_row(
            lengths, batch.computed_tokens, seconds=seconds, data_wait_seconds=waited
        )
        if self._peak_flops:
            flops = step_flops(self._model, self._num_parameters, lengths)
            row["perf/mfu"] = flops / seconds / self._peak_flops
        return row | {"perf/memory_gib": peak_memory_gib(self._device)}


class _ModelShape(Protocol):
    num_hidden_layers: int
    hidden_size: int


def _model_shape(model_dir: Path) -> _ModelShape:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(model_dir)


def peak_flops_of(ranks: Ranks) -> float | None:
    """bf16 peak of all ranks' GPUs together; None on a CPU or an unknown GPU."""
    if ranks.device.type != "cuda":
        return None
    peak = peak_flops(torch.cuda.get_device_name(ranks.device))
    return peak * ranks.world_size if peak else None
