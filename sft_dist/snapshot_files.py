"""From a copy of the state to files: a checkpoint, or the weights alone for an evaluation."""

from pathlib import Path
from typing import Any

from torch import nn

from sft_dist.checkpoint import (
    Contents,
    Retention,
    SavingRanks,
    Snapshot,
    write_checkpoint,
    write_weights,
)
from sft_dist.model import export_causal_lm
from sft_dist.optimizer_state import save_optimizer_state
from sft_dist.train_state import TrainState


class SnapshotFiles:
    """What does not change from one save of a run to the next."""

    def __init__(
        self, causal_lm: nn.Module, tokenizer: Any, *, weights_format: str, ranks: SavingRanks
    ) -> None:
        """Of `causal_lm` only the configurations are read: it is being trained meanwhile."""
        self._causal_lm, self._tokenizer = causal_lm, tokenizer
        self._weights_format, self._ranks = weights_format, ranks

    def write_checkpoint(
        self, run_dir: Path, state: TrainState, snapshot: Snapshot, retention: Retention
    ) -> None:
        """Publish `checkpoint-N`. Collective, on the saving ranks' own group."""
        optimizer = snapshot.optimizer
        assert optimizer is not None
        contents = Contents(
            state,
            write_model=lambda directory: self._write_model(directory, snapshot),
            write_engine=lambda directory: save_optimizer_state(
                directory, optimizer, group=self._ranks.group
            ),
        )
        write_checkpoint(run_dir, contents, ranks=self._ranks, retention=retention)

    def write_weights(self, directory: Path, snapshot: Snapshot) -> None:
        """A model directory that is no checkpoint. On rank 0 alone."""
        write_weights(
            directory, lambda partial: self._write_model(partial, snapshot), ranks=self._ranks
        )

    def _write_model(self, directory: Path, snapshot: Snapshot) -> None:
        export_causal_lm(
            self._causal_lm, snapshot.weights, directory, weights_format=self._weights_format
        )
        self._tokenizer.save_pretrained(directory)
