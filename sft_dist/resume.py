"""Where a run starts: at step 0, or where a checkpoint left it."""

import logging
import uuid
from dataclasses import replace
from pathlib import Path

from sft_dist.checkpoint import find_checkpoint, read_training_state
from sft_dist.config import TrainConfig
from sft_dist.errors import CheckpointError, ConfigError
from sft_dist.preparation import Prepared
from sft_dist.runtime.distributed import Ranks, broadcast_text
from sft_dist.tracking.record import last_by, read_rows
from sft_dist.train_state import TrainState, resume_faults

logger = logging.getLogger(__name__)


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
    faults = resume_faults(saved, fresh)
    if saved.step > prepared.plan.total_steps:
        faults.append(
            f"--max_steps, --num_epochs: {checkpoint} has {saved.step} steps already, the run "
            f"would have {prepared.plan.total_steps}; raise them"
        )
    if faults:
        raise ConfigError(faults)
    return replace(saved, attempt=saved.attempt + 1)


def recorded_accuracies(run_dir: Path) -> dict[int, float]:
    """Accuracy by step, of the evaluations recorded so far."""
    rows = last_by(read_rows(run_dir), "eval/step")
    return {step: row["eval/accuracy"] for step, row in rows.items() if "eval/accuracy" in row}
