"""Serving the evaluations of a run from outside its trainer: `sft-evaluate --serve RUN_DIR`.

Any number of servers, on any hosts that see the run directory, may serve one run. Each keeps a
worker that takes requests from the queue. The trainer grades and logs while it lives; when it has
gone, the one server that gets the owner lease does, so that nothing that was asked for is lost.
"""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sft_dist.errors import EvaluationError
from sft_dist.evaluation.client import EvaluationClient
from sft_dist.evaluation.exports import remove_export
from sft_dist.evaluation.worker_group import Worker
from sft_dist.evaluation.worker_process import WorkerOptions

logger = logging.getLogger(__name__)

FINISHED, IDLE = "the run has ended and nothing is open", "nothing to do for too long"


class EvaluationServer:
    """Serves one run until that has ended, or until there was nothing to do for too long."""

    def __init__(
        self,
        run_dir: Path,
        *,
        record: Callable[[Mapping[str, Any]], None],
        run_is_over: Callable[[], bool],
        idle_seconds: float,
        training_prompt: str | None = None,
        options: WorkerOptions | None = None,
        worker: Worker | None = None,
        stale_seconds: float = 120.0,
        pause_seconds: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe the server; nothing is started.

        Args:
            run_dir: The run to serve.
            record: Gets the rows to log while no trainer lives.
            run_is_over: Whether the run's status says that it will not ask for more.
            idle_seconds: Without an open request, after which the server leaves.
            training_prompt: As for `EvaluationClient`.
            options: How to start the worker.
            worker: A worker made by the caller, instead of one made from `options`.
            stale_seconds: As for `EvaluationClient`.
            pause_seconds: Between two looks.
            clock: Monotonic, in seconds.
        """
        self._client = EvaluationClient(
            run_dir,
            options=options,
            worker=worker,
            is_trainer=False,
            stale_seconds=stale_seconds,
            training_prompt=training_prompt,
            on_done=remove_export,
            watch_seconds=pause_seconds,
        )
        self._record = record
        self._run_is_over = run_is_over
        self._idle_seconds = idle_seconds
        self._pause_seconds = pause_seconds
        self._clock = clock

    def run(self) -> str:
        """Serve; why it ended.

        Raises:
            EvaluationError: when the worker cannot be kept alive.
        """
        with self._client:
            busy = self._clock()
            while True:
                self._report()
                # In this order: a run that ends asks for nothing afterwards.
                over, settled = self._run_is_over(), self._client.all_settled
                if not settled:
                    busy = self._clock()
                if self._client.worker_failure is not None:
                    raise EvaluationError(self._client.worker_failure)
                if over and settled:
                    return FINISHED
                if self._clock() - busy > self._idle_seconds:
                    return IDLE
                time.sleep(self._pause_seconds)

    def _report(self) -> None:
        for result in self._client.poll():
            if result.error is None:
                self._record(result.row)
                logger.info("step %d is graded, as no trainer is there to do it", result.step)
            else:
                logger.error("evaluation of step %d failed: %s", result.step, result.error)
