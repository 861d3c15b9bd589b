"""Rank 0's side: submit an evaluation, go on training, collect the result later.

    client = EvaluationClient(run_dir, options=WorkerOptions(backend="vllm", warm_model=base))
    client.start()
    client.submit(step=500, model_dir=..., problems=..., prompt_name="default", form="boxed",
                  sampling=Sampling(max_new_tokens=512, stop_token_ids=(151643,)))
    for result in client.poll(): ...                              # each step; never waits
    for result in client.drain(timeout_seconds=7200): ...         # after training
    client.close()

Hashing, writing, watching and grading happen on a thread of the client. What is not finished when
the run ends stays in the run directory, and the next `start` on it takes it up again.
"""

import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from sft_dist.evaluation.generator import require_backend
from sft_dist.evaluation.ownership import OwnerLease
from sft_dist.evaluation.queue import EvaluationQueue
from sft_dist.evaluation.request import EvaluationRequest, Problem, Sampling
from sft_dist.evaluation.scoring import EvaluationResult
from sft_dist.evaluation.watcher import Progress, Submission, Watcher
from sft_dist.evaluation.worker_group import Worker
from sft_dist.evaluation.worker_process import WorkerOptions, WorkerProcess
from sft_dist.grading import Grade, GradingPool

logger = logging.getLogger(__name__)

CLOSE_WATCH_SECONDS = 0.1
"""Between two looks at the run directory while results are all there is to wait for."""


class EvaluationClient:
    """Submits the evaluations of one run and collects them. Used by one thread of one process."""

    def __init__(
        self,
        run_dir: Path | str,
        *,
        options: WorkerOptions | None = None,
        training_prompt: str | None = None,
        on_done: Callable[[str], None] | None = None,
        own_worker: bool = True,
        worker: Worker | None = None,
        is_trainer: bool = True,
        stale_seconds: float = 120.0,
        grading_workers: int = 2,
        grading_timeout_seconds: float = 5.0,
        watch_seconds: float = 0.5,
    ) -> None:
        """Describe the client; nothing is started.

        Args:
            run_dir: The run directory; requests and results lie in its `evaluations/`.
            options: How to start the worker.
            training_prompt: Metrics of any other prompt are named `eval/<prompt>/*`.
            on_done: Called on the client's thread with a model directory, when the completions
                of its requests are there, or they failed for good, and none needs it any more.
            own_worker: False where workers are always started by someone else.
            worker: A worker process made by the caller, instead of one made from `options`.
            is_trainer: False for a server (`server.py`): it grades and reports only while no
                trainer does, and then takes up whatever the run has left.
            stale_seconds: Without a sign of life, after which a trainer or server counts as dead.
            grading_workers: Processes that grade.
            grading_timeout_seconds: For one response.
            watch_seconds: Between two looks at the run directory.
        """
        self._options = options or WorkerOptions()
        run_dir = Path(run_dir).absolute()
        if worker is None and own_worker:
            abandon = EvaluationQueue(run_dir).abandon
            worker = WorkerProcess(run_dir, self._options, on_death=abandon)
        self._worker = worker
        self._is_trainer = is_trainer
        self._lease = OwnerLease(
            run_dir, _name(), is_trainer=is_trainer, stale_seconds=stale_seconds
        )
        self._held = False
        self._pool = GradingPool(grading_workers, grading_timeout_seconds)
        self._submissions: queue.Queue[list[Submission]] = queue.Queue()
        self._results: queue.Queue[EvaluationResult] = queue.Queue()
        self._handed_out: list[EvaluationResult] = []
        self._reported: queue.Queue[EvaluationResult] = queue.Queue()
        self._watcher = Watcher(
            run_dir,
            grade_many=self._grade_many,
            deliver=self._results.put,
            training_prompt=training_prompt,
            on_done=on_done,
            is_trainer=is_trainer,
        )
        self._watch_seconds = watch_seconds
        self._progress: Progress | None = None
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._watch, name="evaluation", daemon=True)

    def start(self, *, worker: bool = True) -> None:
        """Start the thread, take up what an earlier attempt of this run left, start the worker.

        Without `worker` requests are written and results collected, and `start_worker` comes
        later or never. Raises EvaluationError when the back-end is not installed.
        """
        if self._worker is not None:
            require_backend(self._options.backend)
        if self._is_trainer:
            self._watcher.recover()
        if worker:
            self.start_worker()
        self._thread.start()

    def start_worker(self) -> None:
        """Start the worker of a client that was started without."""
        self._watcher.worker = self._worker
        self._wake.set()

    def submit(
        self,
        *,
        step: int,
        model_dir: Path | str,
        problems: Sequence[Problem],
        prompt_name: str,
        form: str,
        sampling: Sampling,
        weights_fingerprint: str | None = None,
    ) -> None:
        """Ask for an evaluation; returns at once. Every submission gives one result.

        The same request twice is generated once. `model_dir` must stay until `on_done`.
        """
        directory = str(Path(model_dir).absolute())
        parts = (list(problems), prompt_name, form, sampling, weights_fingerprint)
        self.submit_all([Submission(step, directory, *parts)])

    def submit_all(self, submissions: Sequence[Submission]) -> None:
        """Ask for several evaluations, as `submit` does; `on_done` waits for the last of them."""
        self._submissions.put(list(submissions))
        self._wake.set()

    def poll(self) -> list[EvaluationResult]:
        """The results that have come in since the last call.

        Calling again says that the results of the call before are recorded: a run that dies in
        between gets them once more.
        """
        self._confirm()
        while not self._results.empty():
            result = self._results.get()
            if self._is_trainer or self._held:  # else another owner reports it
                self._handed_out.append(result)
        return list(self._handed_out)

    @property
    def pending(self) -> int:
        """Submissions without a result so far."""
        return self._submissions.unfinished_tasks + len(self._watcher.open)

    @property
    def open_requests(self) -> list[EvaluationRequest]:
        """Requests under way, those of earlier attempts of the run too; all read their weights."""
        return [queued.request for queued in list(self._watcher.open.values())]

    @property
    def all_settled(self) -> bool:
        """Whether every request of the run, of any process, is reported or was given up."""
        return not self.pending and self._watcher.all_settled()

    @property
    def worker_failure(self) -> str | None:
        """Why the client's own worker was given up; None while it lives."""
        return None if self._worker is None else self._worker.failure

    def watch_closely(self) -> None:
        """Look for results often from now on: training has ended, and somebody waits for them."""
        self._watch_seconds = min(self._watch_seconds, CLOSE_WATCH_SECONDS)
        self._wake.set()

    def progress(self) -> Progress | None:
        """How far the earliest open evaluation was a moment ago; None when none is open."""
        return self._progress

    def drain(
        self,
        timeout_seconds: float,
        *,
        on_progress: Callable[[Progress | None], None] | None = None,
    ) -> Iterator[EvaluationResult]:
        """Yield results as they come in, until nothing is pending or the time is over.

        `on_progress` is called a few times a second.
        """
        deadline = time.monotonic() + timeout_seconds
        self.watch_closely()
        while True:
            is_last = not self.pending or time.monotonic() >= deadline
            yield from self.poll()  # after `pending` was read: a result is put before it is counted
            if is_last:
                return
            if on_progress is not None:
                on_progress(self._progress)
            time.sleep(2 * self._watch_seconds)

    def close(self) -> None:
        """Stop the worker and the thread. What is open stays in the run directory."""
        self._confirm()
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=60.0)
        if self._worker is not None:
            self._worker.stop()
        self._lease.close()
        self._pool.close()

    def __enter__(self) -> "EvaluationClient":
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _confirm(self) -> None:
        if not self._handed_out:
            return
        for result in self._handed_out:
            self._reported.put(result)
        self._handed_out = []
        self._wake.set()

    def _grade_many(self, pairs: Sequence[tuple[str, str]], form: Any) -> list[Grade]:
        return self._pool.grade_many(pairs, form=form)

    def _watch(self) -> None:
        """The thread: whatever goes wrong is reported as the end of the open evaluations."""
        said = ""
        while not self._closing:
            try:
                self._turn()
            except OSError as error:  # a full disk or a hiccup of the network: the next turn
                if str(error) != said:
                    logger.warning("evaluations wait: %s", error)
                said = str(error)
            # Evaluation must never stop training, nor stop being reported.
            except Exception as error:
                logger.exception("the evaluation client failed; open evaluations are reported")
                self._report_all(f"internal error of the evaluation client: {error!r}")
            self._wake.wait(self._watch_seconds)
            self._wake.clear()
        self._flush()

    def _turn(self) -> None:
        self._flush()
        held = self._lease.tend()
        if not self._is_trainer and held != self._held:
            self._watcher.open.clear()
            if held:
                self._watcher.recover()
        self._held = held
        self._watcher.tick(may_grade=held)
        self._progress = self._watcher.progress()

    def _flush(self) -> None:
        """Put on disk what the other thread handed over."""
        while not self._reported.empty():
            self._watcher.mark_reported(self._reported.get())
        while not self._submissions.empty():
            submissions = self._submissions.get()
            try:
                self._watcher.submit(submissions)
            finally:
                self._submissions.task_done()

    def _report_all(self, reason: str) -> None:
        for directory, queued in list(self._watcher.open.items()):
            request = queued.request
            self._results.put(EvaluationResult(request.step, request, error=reason))
            del self._watcher.open[directory]


def _name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"
