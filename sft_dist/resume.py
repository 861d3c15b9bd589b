"""Where a run starts: at step 0, or where a checkpoint left it."""

import logging
import uuid
from dataclasses import replace
from pathlib import Path

from sft_dist.checkpoint import find_checkpoint, read_training_state
from sft_dist.config import TrainConfig
from sft_dist.durable import read_json, write_json
from sft_dist.errors import CheckpointError, ConfigError
from sft_dist.preparation import Prepared
from sft_dist.runtime.distributed import Ranks, broadcast_text
from sft_dist.tracking.record import last_by, read_evaluation_rows
from sft_dist.train_state import TrainState, resume_faults

logger = logging.getLogger(__name__)

ATTEMPT_FILE = "attempt.json"


def checkpoint_to_resume(config: TrainConfig, run_dir: Path, ranks: Ranks) -> Path | None:
    """The checkpoint that all ranks continue from; None for a fresh start. Collective.

    Rank 0 verifies it (reading every byte), the others take its word.

    Raises:
        CheckpointError: on every rank.
    """
    resume = config.checkpoint.resume_from_checkpoint
    if resume is None:
        return None
    answer = None
    if ranks.is_zero:
        try:
            answer = str(find_checkpoint(run_dir, resume) or "")
        except CheckpointError as error:
            answer = f"error: {error}"
    answer = broadcast_text(answer)
    if answer.startswith("error: "):
        raise CheckpointError(answer.removeprefix("error: "))
    return Path(answer) if answer else None


def starting_state(config: TrainConfig, prepared: Prepared, checkpoint: Path | None) -> TrainState:
    """The state to go on from, checked against the data and the plan.

    Raises:
        ConfigError: when the run's data or order are not those of the checkpoint.
    """
    fresh = TrainState(
        seed=config.engine.seed,
        global_batch_size=prepared.plan.global_batch_size,
        num_examples=prepared.plan.num_examples,
        data_fingerprint=prepared.fingerprint,
        wandb_run_id=uuid.uuid4().hex[:8],
    )
    if checkpoint is None:
        return fresh
    saved = read_training_state(checkpoint)
    faults = resume_faults(saved, fresh, allow_data_change=config.checkpoint.allow_data_change)
    if saved.step > prepared.plan.total_steps:
        faults.append(
            f"--max_steps, --num_epochs: {checkpoint} has {saved.step} steps already, the run "
            f"would have {prepared.plan.total_steps}; raise them"
        )
    if faults:
        raise ConfigError(faults)
    if saved.data_fingerprint != fresh.data_fingerprint:
        _tell_change(saved, fresh, prepared)
    return replace(
        saved,
        attempt=saved.attempt + 1,
        data_fingerprint=fresh.data_fingerprint,
        num_examples=fresh.num_examples,
    )


def _tell_change(saved: TrainState, planned: TrainState, prepared: Prepared) -> None:
    epoch, done = saved.position(prepared.plan.steps_per_epoch)
    logger.warning(
        "the training data have changed (--allow_data_change): %d examples instead of %d; training "
        "goes on after step %d, batch %d of epoch %d of the new data",
        planned.num_examples, saved.num_examples, saved.step, done + 1, epoch + 1,
    )  # fmt: skip


def next_attempt(state: TrainState, run_dir: Path) -> TrainState:
    """Number this start of the run, and note it in the run directory. On rank 0, with its lock.

    A checkpoint knows the attempts up to its own; one that was killed before its first save has
    left only this note. Without a checkpoint the wandb run is that of the attempts before.
    """
    path = run_dir / ATTEMPT_FILE
    noted = read_json(path) or {}
    attempt = max(state.attempt, noted.get("attempt", 0) + 1)
    run_id = state.wandb_run_id if state.step else noted.get("wandb_run_id", state.wandb_run_id)
    write_json(path, {"attempt": attempt, "wandb_run_id": run_id})
    return replace(state, attempt=attempt, wandb_run_id=run_id)


def recorded_accuracies(run_dir: Path) -> dict[int, float]:
    """Accuracy by step, of the evaluations recorded so far."""
    rows = last_by(read_evaluation_rows(run_dir), "eval/step")
    return {step: row["eval/accuracy"] for step, row in rows.items() if "eval/accuracy" in row}
