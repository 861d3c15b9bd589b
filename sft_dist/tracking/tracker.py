"""Where the loop reports to: the record, wandb and the console on rank 0, nothing elsewhere."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sft_dist.config import TrainConfig
from sft_dist.tracking.console import Progress, evaluation_line, step_line
from sft_dist.tracking.record import MetricsRecord
from sft_dist.tracking.startup import StartupTimes
from sft_dist.tracking.wandb_view import WandbView

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """What the training loop reports."""

    def log_step(self, row: Mapping[str, Any]) -> None:
        """A training step."""

    def log_evaluation(self, row: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> None:
        """A finished evaluation."""

    def close(self, *, failed: bool = False) -> None:
        """No more to come."""


class NullTracker:
    """On ranks other than 0, so that the loop does not ask which rank it is on."""

    def log_step(self, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def log_evaluation(self, row: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> None:
        """Nothing."""

    def close(self, *, failed: bool = False) -> None:
        """Nothing."""


class RunTracker:
    """Rank 0: every row to `metrics.jsonl` first, then to its views."""

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        *,
        run_id: str,
        attempt: int,
        step: int,
        total_steps: int,
        startup: StartupTimes,
    ) -> None:
        self._record = MetricsRecord(run_dir, attempt)
        self._wandb = WandbView(config, run_dir, run_id)
        self._progress = Progress(total_steps=total_steps, step=step, show=True)
        self._log_steps = config.tracking.log_steps
        self._total_steps = total_steps
        self._startup = startup
        self._began: tuple[float, int] | None = None
        if self._wandb.url:
            logger.info("wandb: %s", self._wandb.url)

    def log_step(self, row: Mapping[str, Any]) -> None:
        """A training step; rows between `--log_steps` only move the progress bar.

        The first step after a start is always logged, with what the start cost.
        """
        self._progress.advance(row)
        if self._began is None:
            self._began = (time.monotonic(), row["step"])
            self._startup.done("first_step")
            row = {**row, **self._startup.row()}
        elif row["step"] % self._log_steps and row["step"] != self._total_steps:
            return
        self._record.write(row)
        self._wandb.log({k: v for k, v in row.items() if k != "step"})
        logger.info("%s", step_line(row, self._total_steps, self._seconds_left(row)))

    def log_evaluation(self, row: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> None:
        """A finished evaluation, at its own step."""
        self._record.write(row)
        self._wandb.log(row)
        self._wandb.log_samples(row["eval/step"], samples)
        logger.info("%s", evaluation_line(row))

    def close(self, *, failed: bool = False) -> None:
        """Close the record and the views."""
        self._progress.close()
        self._wandb.close(failed=failed)
        self._record.close()

    def _seconds_left(self, row: Mapping[str, Any]) -> float:
        """By the mean of the steps since the first, which also warms everything up."""
        assert self._began is not None
        began, first = self._began
        done = row["step"] - first
        mean = (time.monotonic() - began) / done if done else row["perf/step_seconds"]
        return mean * (self._total_steps - row["step"])
