"""What a run is doing now: from status.json, the record, the lock and the evaluations' files."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from sft_dist.durable import read_json
from sft_dist.reporting.checkpoints import Checkpoint, read_checkpoints
from sft_dist.reporting.evaluations import Evaluation, failures, read_evaluations
from sft_dist.reporting.liveness import Life, lock_holder
from sft_dist.reporting.run_files import STATUS, number, read_settings, text, whole
from sft_dist.reporting.training import Row, Training, read_training


@dataclass(frozen=True)
class RunState:
    """`state` and `reason` are those of status.json (`unknown` without one), `time` is its time.

    `life` is what the lock says of the trainer, `holder` what the trainer wrote about itself.
    Times are Unix seconds, `now` is when this was read.
    """

    state: str
    reason: str
    life: Life
    holder: str | None
    now: float
    time: float | None = None
    last_row_time: float | None = None
    step: int | None = None
    """Of status.json, written when the run stopped."""

    @property
    def is_dead(self) -> bool:
        """It says that it is running, but nobody holds the run directory."""
        return self.state == "running" and self.life == "dead"

    @property
    def headline(self) -> str:
        """One word or two for people."""
        if self.is_dead:
            return "dead"
        return {"requeue": "stopped", "running": "running"}.get(self.state, self.state)


@dataclass(frozen=True)
class RunNow:
    """The parts of the answer to "what is it doing"."""

    state: RunState
    training: Training
    open_evaluations: list[Evaluation] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    last_fault: tuple[float, str] | None = None


def read_progress(run_dir: Path, settings: Row) -> tuple[RunState, Training]:
    """A run's state and its record, which end at the same step: rows may end before a stop."""
    training = read_training(run_dir, settings)
    state = read_state(run_dir, training)
    if state.state != "running" and state.step is not None:
        training = replace(training, step=state.step)
    return state, training


def read_state(run_dir: Path, training: Training) -> RunState:
    """The run's state; never raises for what is missing."""
    status, holder = read_json(run_dir / STATUS) or {}, lock_holder(run_dir)
    return RunState(
        state=text(status.get("state")) or "unknown",
        reason=text(status.get("reason")) or "",
        life=holder.life,
        holder=holder.name,
        now=time.time(),
        time=number(status.get("time")),
        last_row_time=training.last_time,
        step=whole(status.get("step")),
    )


def read_now(run_dir: Path) -> RunNow:
    """Read everything that `status` tells."""
    state, training = read_progress(run_dir, read_settings(run_dir))
    evaluations = read_evaluations(run_dir)
    faults = [fault for evaluation in evaluations for fault in _named(evaluation)]
    if state.state == "failed":
        faults.append((state.time or 0.0, state.reason))
    if state.is_dead:
        faults.append((training.last_time or state.time or 0.0, "the trainer ended without a word"))
    return RunNow(
        state=state,
        training=training,
        open_evaluations=[e for e in evaluations if e.is_open],
        checkpoints=read_checkpoints(run_dir),
        last_fault=max(faults, default=None),
    )


def _named(evaluation: Evaluation) -> list[tuple[float, str]]:
    name = f"evaluation of step {evaluation.step}"
    return [(when, f"{name}, {what}") for when, what in failures(evaluation)]
