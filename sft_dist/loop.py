"""The training loop: one global batch a step; saving, evaluating and stopping between two steps."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from sft_dist.checkpoint import (
    checkpoint_path,
    checkpoint_step,
    list_checkpoints,
    save_checkpoint,
)
from sft_dist.config import TrainConfig
from sft_dist.data.batching import split_global_batch
from sft_dist.data.packing import MicroBatch, micro_batches
from sft_dist.data.tokenization import TokenizedExample
from sft_dist.engines.protocol import Engine, StepResult
from sft_dist.errors import NonFiniteError
from sft_dist.evaluation.scoring import EvaluationResult
from sft_dist.evaluation.session import EXPORTS, Evaluations
from sft_dist.normalization import LossNormalization
from sft_dist.preparation import Prepared
from sft_dist.runtime.distributed import Ranks, any_rank
from sft_dist.runtime.stopping import StopRequest, take_save_request
from sft_dist.schedule import learning_rate_at
from sft_dist.tracking.throughput import peak_flops, step_flops
from sft_dist.tracking.tracker import Tracker
from sft_dist.train_state import TrainState

logger = logging.getLogger(__name__)


class TrainingLoop:
    """What the steps of a run share. `run` takes it to the last step or to an agreed stop."""

    def __init__(
        self,
        config: TrainConfig,
        prepared: Prepared,
        *,
        engine: Engine,
        num_parameters: int,
        ranks: Ranks,
        run_dir: Path,
        tracker: Tracker,
        evaluations: Evaluations,
        stop: StopRequest,
        accuracies: dict[int, float] | None = None,
    ) -> None:
        """`accuracies` are those that earlier attempts recorded, by step."""
        self.config, self.prepared, self.plan = config, prepared, prepared.plan
        self.engine, self.num_parameters = engine, num_parameters
        self.ranks, self.run_dir = ranks, run_dir
        self.tracker, self.evaluations, self.stop = tracker, evaluations, stop
        self.accuracies = dict(accuracies or {})
        self.normalization = LossNormalization(
            config.batch.loss_normalization, config.batch.loss_constant
        )
        self.failed_evaluations: list[int] = []
        self._saved_step: int | None = None
        self._flops = peak_flops_of(ranks)
        self._model_config = _model_shape(prepared.model_dir)

    def run(self, state: TrainState) -> TrainState:
        """Train to the end of the plan, or until all ranks agree to stop; the state reached."""
        self._submit_missed(state)
        while state.step < self.plan.total_steps:
            state = self.step(state)
            self._save_and_evaluate(state)
            self.report(self.evaluations.collect())
            if any_rank(self.stop.requested(), self.ranks.device):
                self._save(state)
                break
        return state

    def step(self, state: TrainState) -> TrainState:
        """One update from one global batch."""
        began = time.monotonic()
        batch = [self.prepared.examples[i] for i in self.plan.global_batch(state.step)]
        parts = split_global_batch(
            [len(e) for e in batch], self.ranks.world_size, self.config.max_tokens_per_microbatch()
        )
        target_tokens = sum(e.num_target_tokens for e in batch)
        rate = learning_rate_at(
            state.step,
            peak=self.config.optimizer.learning_rate,
            warmup_steps=self.prepared.warmup_steps,
            total_steps=self.plan.total_steps,
        )
        mine = micro_batches(
            batch,
            parts[self.ranks.rank],
            normalization=self.normalization,
            packing=self.config.batch.packing,
        )
        normalizer = self.normalization.normalizer(
            num_examples=len(batch), num_target_tokens=target_tokens
        )
        result = self._train_step(state.step + 1, mine, normalizer, rate)
        state = state.advanced(target_tokens)
        seconds = time.monotonic() - began
        row = self._row(state, result, batch, rate) | self._performance(batch, parts, seconds)
        self.tracker.log_step(row)
        return state

    def report(self, results: Sequence[EvaluationResult]) -> None:
        """Log finished evaluations, each at its own step."""
        for result in results:
            if result.error is not None:
                logger.error("evaluation of step %d failed: %s", result.step, result.error)
                self.failed_evaluations.append(result.step)
                continue
            self.tracker.log_evaluation(
                {"eval/step": result.step, **result.metrics}, result.samples
            )
            self.accuracies[result.step] = result.metrics["eval/accuracy"]

    def _train_step(
        self, number: int, mine: Sequence[MicroBatch], normalizer: float, rate: float
    ) -> StepResult:
        try:
            result = self.engine.train_step(mine, normalizer, rate)
        except NonFiniteError as error:
            raise NonFiniteError(f"step {number}: {error}") from error
        if not result.applied:
            ids = ", ".join(i for batch in mine for i in batch.example_ids)
            raise NonFiniteError(
                f"step {number}: expected a finite gradient, found norm "
                f"{result.grad_norm_preclip}; no update was made. Rank {self.ranks.rank} had the "
                f"examples {ids}. Lower --learning_rate or look at these examples"
            )
        return result

    def _save_and_evaluate(self, state: TrainState) -> None:
        step = state.step
        save = self._is_milestone(step) or step % self.config.checkpoint.save_steps == 0
        if save or any_rank(self._save_requested(), self.ranks.device):
            self._save(state)
        if self._evaluation_is_due(step):
            self.evaluations.submit(step, self._evaluated_weights(state))

    def _evaluation_is_due(self, step: int) -> bool:
        settings = self.config.evaluation
        if step == 0 or settings.eval_placement == "off":
            return settings.eval_at_start and settings.eval_placement != "off"
        return self._is_milestone(step) or step % settings.eval_steps == 0

    def _is_milestone(self, step: int) -> bool:
        return self.plan.is_epoch_end(step) or step == self.plan.total_steps

    def _submit_missed(self, state: TrainState) -> None:
        """Ask for the evaluations up to here that have no result: none when all went well.

        A run may have been killed between saving weights and asking for their evaluation. One
        that is still open is asked for again at no cost: the same request is done once.
        """
        weights = {0: self.prepared.model_dir}
        weights |= {checkpoint_step(path): path for path in list_checkpoints(self.run_dir)}
        weights |= {
            int(path.name.split("-")[1]): path for path in self.run_dir.glob(f"{EXPORTS}/step-*")
        }
        for step, path in sorted(weights.items()):
            due = step <= state.step and self._evaluation_is_due(step)
            if due and step not in self.accuracies:
                self.evaluations.submit(step, path)

    def _save(self, state: TrainState) -> None:
        if self._saved_step == state.step:
            return
        began = time.monotonic()
        best = max(self.accuracies, key=lambda step: (self.accuracies[step], -step), default=0)
        keep = {best, *self.evaluations.steps_reading()}
        path = save_checkpoint(
            self.run_dir,
            state,
            engine=self.engine,
            tokenizer=self.prepared.tokenizer,
            keep_last=self.config.checkpoint.keep_last_n_checkpoints,
            keep=keep,
        )
        self._saved_step = state.step
        logger.info("saved %s in %.1f s", path, time.monotonic() - began)

    def _evaluated_weights(self, state: TrainState) -> Path:
        """The checkpoint of this step, or an export of the weights alone. Collective."""
        if self._saved_step == state.step:
            return checkpoint_path(self.run_dir, state.step)
        # Never a directory of an earlier attempt: an evaluation may be reading it.
        path = self.run_dir / EXPORTS / f"step-{state.step:06d}-attempt-{state.attempt}"
        partial = path.with_name(f".tmp-{path.name}")
        if self.ranks.is_zero:
            partial.mkdir(parents=True, exist_ok=True)
            self.prepared.tokenizer.save_pretrained(partial)
        self.engine.export_weights(partial)
        if self.ranks.is_zero:
            partial.rename(path)
        return path

    def _save_requested(self) -> bool:
        return self.ranks.is_zero and take_save_request(self.run_dir)

    def _row(
        self, state: TrainState, result: StepResult, batch: Sequence[TokenizedExample], rate: float
    ) -> dict[str, Any]:
        tokens = sum(e.num_target_tokens for e in batch)
        normalizer = self.normalization.normalizer(
            num_examples=len(batch), num_target_tokens=tokens
        )
        limit = self.config.optimizer.max_grad_norm
        norm = result.grad_norm_preclip
        return {
            "step": state.step,
            "train/step": state.step,
            "train/epoch": state.step / self.plan.steps_per_epoch,
            "train/loss": result.loss_sum / tokens,
            "train/objective": result.objective_sum / normalizer,
            "train/token_entropy": result.entropy_sum / tokens,
            "train/token_accuracy": result.num_correct / tokens,
            "train/learning_rate": rate,
            "train/grad_norm": min(norm, limit) if limit else norm,
            "train/grad_norm_preclip": norm,
            "train/examples": len(batch),
            "train/target_tokens": tokens,
        }

    def _performance(
        self,
        batch: Sequence[TokenizedExample],
        parts: Sequence[Sequence[Sequence[int]]],
        seconds: float,
    ) -> dict[str, float]:
        lengths = [len(e) for e in batch]
        loads = [sum(lengths[i] for part in rank for i in part) for rank in parts]
        row = {
            "perf/step_seconds": seconds,
            "perf/tokens_per_second": sum(lengths) / seconds,
            "perf/rank_imbalance": max(loads) * len(loads) / sum(loads),
        }
        if self._flops:
            flops = step_flops(self._model_config, self.num_parameters, lengths)
            row["perf/mfu"] = flops / seconds / self._flops
        if self.ranks.device.type == "cuda":
            row["perf/memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return row


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
    return peak * dist.get_world_size() if peak else None
