"""Which checkpoint a run continues from, and what it says of the run."""

import logging
from pathlib import Path

import torch

from sft_dist.checkpoint.layout import NAME, TRAINING_STATE, list_checkpoints
from sft_dist.checkpoint.manifest import damage
from sft_dist.errors import CheckpointError
from sft_dist.train_state import TrainState

logger = logging.getLogger(__name__)


def find_checkpoint(run_dir: Path, resume: str) -> Path | None:
    """The checkpoint to continue from; damaged ones are named and passed over.

    Args:
        run_dir: the run to look in.
        resume: `latest`, a run directory, or a checkpoint, which must then be whole.

    Returns:
        None when `latest` finds no checkpoint at all: a fresh start.

    Raises:
        CheckpointError: when the checkpoint named, or every one of the run, is damaged.
    """
    path = Path(resume)
    named = resume != "latest" and NAME.fullmatch(path.name) is not None
    candidates = [path] if named else list_checkpoints(run_dir if resume == "latest" else path)
    rejected = []
    for candidate in reversed(candidates):
        faults = damage(candidate)
        if not faults:
            return candidate
        rejected.append(f"{candidate}: {'; '.join(faults[:3])}")
        logger.warning("not resuming from %s", rejected[-1])
    if rejected or resume != "latest":
        raise CheckpointError(
            "expected a whole checkpoint to resume from, found none: "
            + ("\n  ".join(rejected) or f"{path} holds no checkpoint-N")
        )
    return None


def read_training_state(checkpoint: Path) -> TrainState:
    """The state stored in a checkpoint."""
    values = torch.load(checkpoint / TRAINING_STATE, weights_only=True, map_location="cpu")
    return TrainState.from_dict(values)
