"""What is settled before a process group or a GPU is touched: data, batches, schedule."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft_dist.config import TrainConfig
from sft_dist.data.contamination import refuse_contamination
from sft_dist.data.dataset import load_problems
from sft_dist.data.records import MathExample
from sft_dist.data.sampler import BatchPlan
from sft_dist.data.token_cache import resolved_cache_dir
from sft_dist.data.tokenization import TokenizedExample, tokenize_examples
from sft_dist.errors import ConfigError, counted
from sft_dist.evaluation.placement import gpus, reserved_fault
from sft_dist.model import load_tokenizer, local_model_dir, stop_token_id
from sft_dist.runtime.launch_environment import (
    local_world_size_from_environment,
    on_first_node,
    rank_from_environment,
)
from sft_dist.schedule import default_warmup_steps
from sft_dist.train_state import data_fingerprint

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The same on every rank."""

    model_dir: Path
    tokenizer: Any
    stop_token_id: int
    examples: Sequence[TokenizedExample]
    evaluation: Sequence[MathExample]
    plan: BatchPlan
    warmup_steps: int
    fingerprint: str
    """Of the training examples, see `data_fingerprint`."""


def prepare(config: TrainConfig, *, world_size: int) -> Prepared:
    """Read and tokenise the data, count the steps.

    Raises:
        ConfigError, DataError, ModelError: before anything is allocated.
    """
    _refuse_placement(config)
    problems = load_problems(
        config.data,
        evaluate=config.evaluation.eval_placement != "off",
        max_eval_samples=config.evaluation.max_eval_samples,
    )
    refuse_contamination(problems.train, problems.evaluation, allow=config.data.allow_contamination)
    model_dir = local_model_dir(config.model.model_path)
    tokenizer = load_tokenizer(str(model_dir))
    stop_id = stop_token_id(str(model_dir), tokenizer)
    logger.info("generation stops at %r (id %d)", tokenizer.decode([stop_id]), stop_id)
    examples = tokenize_examples(
        problems.train,
        tokenizer,
        prompt=config.data.prompt,
        stop_token_id=stop_id,
        max_seq_length=config.data.max_seq_length,
        overlength=config.data.overlength,
        cache_dir=resolved_cache_dir(config.data.cache_dir),
        show_progress=rank_from_environment() == 0 and sys.stderr.isatty(),
    )
    plan = BatchPlan(
        num_examples=len(examples),
        global_batch_size=config.global_batch_size(world_size),
        num_epochs=config.optimizer.num_epochs,
        seed=config.engine.seed,
        max_steps=config.optimizer.max_steps,
    )
    warmup_steps = resolve_warmup(config.optimizer.warmup_steps, plan.total_steps)
    _describe(config, plan, warmup_steps, world_size)
    return Prepared(
        model_dir=model_dir,
        tokenizer=tokenizer,
        stop_token_id=stop_id,
        examples=examples,
        evaluation=problems.evaluation,
        plan=plan,
        warmup_steps=warmup_steps,
        fingerprint=data_fingerprint(examples),
    )


def _refuse_placement(config: TrainConfig) -> None:
    """Raise ConfigError when the GPUs to reserve for evaluation are not there, or have ranks."""
    settings = config.evaluation
    if settings.eval_placement == "reserved" and on_first_node():
        ranks = local_world_size_from_environment()
        fault = reserved_fault(gpus(), ranks=ranks, wanted=settings.eval_gpus)
        if fault is not None:
            raise ConfigError([fault])


def resolve_warmup(explicit: int | None, total_steps: int) -> int:
    """The warm-up in steps.

    Raises:
        ConfigError: when an explicit one leaves no step at the peak.
    """
    if explicit is None:
        return default_warmup_steps(total_steps)
    if explicit >= total_steps:
        raise ConfigError(
            [
                f"--warmup_steps: expected fewer than the run's {total_steps} steps, found "
                f"{explicit}; lower it, or leave it out for {default_warmup_steps(total_steps)}"
            ]
        )
    return explicit


def _describe(config: TrainConfig, plan: BatchPlan, warmup_steps: int, world_size: int) -> None:
    batch = config.batch
    how = (
        "as set"
        if batch.global_batch_size
        else f"{batch.batch_size} x {batch.gradient_accumulation_steps} accumulation x "
        f"{counted(world_size, 'rank')}"
    )
    logger.info("global batch %d: %s", plan.global_batch_size, how)
    logger.info(
        "%d examples: %d steps an epoch, %d in all, %d of warm-up",
        plan.num_examples, plan.steps_per_epoch, plan.total_steps, warmup_steps,
    )  # fmt: skip
    if plan.max_steps is not None and plan.max_steps > plan.total_steps:
        logger.warning(
            "--max_steps %d is not reached: --num_epochs %d ends after %d steps; for all of them "
            "set --num_epochs %d", plan.max_steps, plan.num_epochs, plan.total_steps,
            -(-plan.max_steps // plan.steps_per_epoch),
        )  # fmt: skip
