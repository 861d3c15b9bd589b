"""Checkpoints of a run, and weights for evaluations between them: copied here, written elsewhere.

The training thread copies the state to host memory; a thread beside it writes the copy, makes it
durable and gives it its name. At most one write is under way. The loop decides what is due when.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft_dist.checkpoint import (
    InBackground,
    Outcome,
    Retention,
    SavingRanks,
    Snapshot,
    checkpoint_path,
    memory_for_snapshots,
    remove_old_checkpoints,
    share_weights,
    take_snapshot,
    what_to_keep,
)
from sft_dist.config import TrainConfig, bytes_per_weight
from sft_dist.engines.protocol import Engine
from sft_dist.errors import CheckpointError
from sft_dist.evaluation.exports import new_export_path
from sft_dist.evaluation.session import Evaluations
from sft_dist.runtime.distributed import Ranks
from sft_dist.snapshot_files import SnapshotFiles
from sft_dist.train_state import TrainState

logger = logging.getLogger(__name__)

GIB = 2**30

ASSUMED_BYTES_PER_SECOND = 2e8
"""Of a disk on which this run has not saved yet: a slow network file system."""
OPTIMIZER_BYTES = 12
"""Of one parameter: float32 master and two moments."""

Known = Callable[[], tuple[Collection[int], Mapping[int, float]]]
"""Steps that evaluations read, and after that the accuracies by step: no step is in neither."""


@dataclass
class _Job:
    """What is being written."""

    step: int
    target: Path
    is_checkpoint: bool
    is_evaluated: bool
    nbytes: int
    copy_seconds: float = 0.0
    model_dir: Path | None = None
    """What an evaluation of it reads; set by the thread that writes."""


class Saving:
    """Saves of one run. Collective, but for `poll`, `has_failed` and `close`, which never wait."""

    def __init__(
        self,
        config: TrainConfig,
        *,
        engine: Engine,
        tokenizer: Any,
        num_parameters: int,
        ranks: Ranks,
        run_dir: Path,
        evaluations: Evaluations,
        on_lost_evaluation: Callable[[int], None],
    ) -> None:
        """Begin to take the memory that copies will need, when they are to be written beside.

        Args:
            config: the run's settings.
            engine: whose state is saved.
            tokenizer: saved beside the weights.
            num_parameters: of the model.
            ranks: where this process stands.
            run_dir: on a file system that all ranks see.
            evaluations: told of weights as soon as they are published.
            on_lost_evaluation: told of a step whose weights could not be written.
        """
        self._settings = config.checkpoint
        self._engine = engine
        self._ranks, self._run_dir = ranks, run_dir
        self._evaluations, self._on_lost_evaluation = evaluations, on_lost_evaluation
        self._peers = SavingRanks()
        self._files = SnapshotFiles(
            engine.causal_lm,
            tokenizer,
            weights_format=self._settings.weights_format,
            ranks=self._peers,
        )
        self._memory = None
        if self._settings.async_save:
            self._memory = memory_for_snapshots(
                engine,
                weight_bytes=num_parameters * bytes_per_weight(config.model.dtype),
                ranks=self._peers,
                device=ranks.device,
            )
        self._background = InBackground(asynchronous=self._memory is not None)
        self._job: _Job | None = None
        self._requested_step: int | None = None
        self._last_fault: CheckpointError | None = None
        self._evaluated_apart: set[int] = set()
        state = num_parameters * OPTIMIZER_BYTES / ranks.world_size
        weights = num_parameters * bytes_per_weight(config.model.dtype)
        self.expected_seconds = (state + weights) / ASSUMED_BYTES_PER_SECOND
        """What to keep free for a save: the longest so far, from the copy to the name."""
        self.stall_seconds = 0.0
        """Time that training has stood still for saving; who logs it sets it back."""

    def checkpoint(self, state: TrainState, *, evaluate: bool, known: Known) -> None:
        """Save this step, unless it is saved or being saved already.

        Args:
            state: where the run stands.
            evaluate: ask for its evaluation once it is published.
            known: asked when the evaluation of the former checkpoint has been asked for.

        Raises:
            CheckpointError: on all ranks, when the former save failed and errors stop the run.
        """
        if self._requested_step == state.step:
            return
        began = time.monotonic()
        target = checkpoint_path(self._run_dir, state.step)
        self._end_former(target)
        retention = self._retention(*known())
        snapshot, job = self._copy(_Job(state.step, target, True, evaluate, 0), with_optimizer=True)
        self._requested_step = state.step
        self._begin(job, lambda: self._write_checkpoint(job, state, snapshot, retention))
        self.stall_seconds += time.monotonic() - began

    def export(self, state: TrainState) -> None:
        """Write the weights of this step for its evaluation: no checkpoint, nothing to resume.

        Raises:
            CheckpointError: on all ranks, when the former save failed and errors stop the run.
        """
        began = time.monotonic()
        target = new_export_path(self._run_dir, state.step, attempt=state.attempt)
        self._end_former(target)
        snapshot, job = self._copy(_Job(state.step, target, False, True, 0), with_optimizer=False)
        if self._ranks.is_zero:
            self._begin(job, lambda: self._write_export(job, snapshot))
        self.stall_seconds += time.monotonic() - began

    def poll(self) -> None:
        """Ask for the evaluation of what has been published since; never waits."""
        if self._background.has_ended and not self._background.has_failed:
            self._published(self._background.take())

    def has_failed(self) -> bool:
        """Whether this rank knows of a save that failed and that `settle` has not dealt with."""
        return self._background.has_failed

    def settle(self, *, is_last: bool = False) -> None:
        """Wait for the write under way on every rank and deal with how it ended.

        Raises:
            CheckpointError: on all ranks, when it failed and `--on_save_error` is stop.
        """
        outcome = self._background.take()
        error = outcome.error if outcome is not None else None
        if self._peers.any(error is not None):
            self._failed(error, is_last=is_last)
        else:
            self._published(outcome)

    def finish(self) -> None:
        """Wait for the last save. The run may leave when this returns.

        Raises:
            CheckpointError: when the last checkpoint could not be written, whatever
                `--on_save_error` says: there would be nothing to show for the steps since.
        """
        began = time.monotonic()
        self.settle(is_last=True)
        if self._memory is not None:
            self._memory.settle()
        if time.monotonic() - began > 1:
            logger.info("waited %.1f s for the last save", time.monotonic() - began)
        if self._last_fault is not None:
            raise self._last_fault

    def tidy(self, reading: Collection[int], accuracies: Mapping[int, float]) -> None:
        """Remove what the evaluations that ended since the last save had kept. On rank 0 alone."""
        try:
            remove_old_checkpoints(self._run_dir, self._retention(reading, accuracies))
        except OSError as error:
            logger.warning("an old checkpoint could not be removed: %s", error)

    def close(self, timeout_seconds: float) -> None:
        """After an error: let the save under way end, if it does; no collective of this thread."""
        if self._memory is not None:
            self._memory.settle()
        if self._background.is_busy and not self._background.has_ended:
            logger.warning("waiting up to %.0f s for the save under way", timeout_seconds)
        outcome = self._background.take(timeout_seconds)
        if outcome is not None and outcome.error is None:
            self._published(outcome)
        elif outcome is not None:
            logger.error("%s", outcome.error)

    def _retention(self, reading: Collection[int], accuracies: Mapping[int, float]) -> Retention:
        return what_to_keep(
            self._run_dir,
            accuracies,
            keep_last=self._settings.keep_last_n_checkpoints,
            keep_best=self._settings.keep_best,
            reading=reading,
            reading_apart=self._evaluated_apart,
        )

    def _end_former(self, target: Path) -> None:
        """At most one write at a time."""
        if self._background.is_busy and not self._background.has_ended and self._job is not None:
            logger.info("saving %s waits until %s is written", target.name, self._job.target.name)
        self.settle()

    def _copy(self, job: _Job, *, with_optimizer: bool) -> tuple[Snapshot, _Job]:
        began = time.monotonic()
        snapshot = take_snapshot(self._engine, self._memory, with_optimizer=with_optimizer)
        job.nbytes, job.copy_seconds = snapshot.nbytes, time.monotonic() - began
        return snapshot, job

    def _begin(self, job: _Job, work: Callable[[], None]) -> None:
        self._job = job
        self._background.start(work, name=f"save-{job.step}")

    def _write_checkpoint(
        self, job: _Job, state: TrainState, snapshot: Snapshot, retention: Retention
    ) -> None:
        self._files.write_checkpoint(self._run_dir, state, snapshot, retention)
        if job.is_evaluated and self._ranks.is_zero:
            apart = new_export_path(self._run_dir, state.step, attempt=state.attempt)
            job.model_dir = apart if share_weights(job.target, apart) else job.target

    def _write_export(self, job: _Job, snapshot: Snapshot) -> None:
        self._files.write_weights(job.target, snapshot)
        job.model_dir = job.target

    def _published(self, outcome: Outcome | None) -> None:
        job, self._job = self._job, None
        if job is None or outcome is None:
            return
        if job.is_checkpoint:
            self._last_fault = None
        self.expected_seconds = max(self.expected_seconds, job.copy_seconds + outcome.seconds)
        logger.info(
            "saved %s: %.3g GiB of this rank copied in %.2f s, written in %.1f s",
            job.target, job.nbytes / GIB, job.copy_seconds, outcome.seconds,
        )  # fmt: skip
        if job.model_dir is not None:
            if job.model_dir != job.target:
                self._evaluated_apart.add(job.step)
            self._evaluations.submit(job.step, job.model_dir)

    def _failed(self, error: Exception | None, *, is_last: bool) -> None:
        """On every rank; one that has written nothing of an export has no error of its own."""
        job, self._job = self._job, None
        fault = CheckpointError(str(error) if error else "rank 0 could not write; it says what")
        if job is not None and job.is_checkpoint:
            self._requested_step, self._last_fault = None, fault
        if job is not None and job.is_evaluated:
            self._on_lost_evaluation(job.step)
        if self._settings.on_save_error == "stop":
            raise fault from error
        if self._ranks.is_zero:
            logger.error("%s%s", fault, "" if is_last else ". Training goes on meanwhile")
