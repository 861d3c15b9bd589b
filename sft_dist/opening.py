"""How a run begins: which directory is its own, and where in it training goes on."""

import logging
import time
from dataclasses import replace
from pathlib import Path

from sft_dist.checkpoint import remove_leftovers
from sft_dist.config import TrainConfig
from sft_dist.errors import ConfigError
from sft_dist.preparation import Prepared
from sft_dist.resume import checkpoint_to_resume, next_attempt, starting_state
from sft_dist.runtime.distributed import Ranks, broadcast_text
from sft_dist.runtime.run_directory import (
    lock_run_dir,
    new_run_dir,
    write_run_files,
    write_status,
)
from sft_dist.runtime.stopping import drop_stale_stop
from sft_dist.runtime.watch import RankWatch
from sft_dist.tracking.console import log_to_file
from sft_dist.tracking.startup import process_age
from sft_dist.train_state import TrainState

logger = logging.getLogger(__name__)


def starting_point(
    config: TrainConfig, prepared: Prepared, ranks: Ranks, watch: RankWatch
) -> tuple[Path, Path | None, TrainState]:
    """Run directory, checkpoint to resume and state to go on from; nothing is written yet.

    Raises:
        CheckpointError, ConfigError: on every rank, with the run directory as it was.
    """
    run_dir = Path(broadcast_text(str(new_run_dir(config)) if ranks.is_zero else None))
    watch.at(0, "waiting for rank 0 to verify the checkpoint")
    checkpoint = checkpoint_to_resume(config, run_dir, ranks)
    watch.at(0, "opening the run directory")
    return run_dir, checkpoint, starting_state(config, prepared, checkpoint)


def open_run_dir(
    config: TrainConfig, prepared: Prepared, ranks: Ranks, run_dir: Path, state: TrainState
) -> TrainState:
    """Rank 0 takes the run directory for itself and writes what runs there; the state, numbered."""
    fault = ""
    if ranks.is_zero:
        try:
            fault, state = take_run_dir(config, prepared, ranks, run_dir, state)
        except OSError as error:
            fault = (
                f"--output_dir: {run_dir} cannot be written ({error}); make room or rights, or "
                "name another directory"
            )
    fault = broadcast_text(fault)
    if fault:
        raise ConfigError([fault])
    log_to_file(run_dir, ranks.rank)
    logger.info("run directory: %s", run_dir)
    attempt, run_id = broadcast_text(f"{state.attempt} {state.wandb_run_id}").split()
    return replace(state, attempt=int(attempt), wandb_run_id=run_id)


def take_run_dir(
    config: TrainConfig, prepared: Prepared, ranks: Ranks, run_dir: Path, state: TrainState
) -> tuple[str, TrainState]:
    """Rank 0's part of `open_run_dir`: why not, or nothing, and the state, numbered."""
    fault = lock_run_dir(run_dir)
    if fault:
        return fault, state
    batch_size = prepared.plan.global_batch_size
    write_run_files(run_dir, config, ranks.world_size, global_batch_size=batch_size)
    write_status(run_dir, "running", "training")
    remove_leftovers(run_dir)
    drop_stale_stop(run_dir, since=time.time() - process_age())
    return "", next_attempt(state, run_dir)
