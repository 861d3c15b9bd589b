"""What the client's thread does: write requests, tend the worker, grade what was published.

Nothing here knows of threads; each call does its work and returns.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sft_dist.errors import SftDistError
from sft_dist.evaluation.queue import EvaluationQueue, QueuedRequest
from sft_dist.evaluation.request import (
    EvaluationRequest,
    Problem,
    Sampling,
    problems_file,
    problems_text,
)
from sft_dist.evaluation.scoring import EvaluationResult, GradeMany, score, stored_result
from sft_dist.evaluation.worker_process import WorkerProcess
from sft_dist.fingerprint import weights_fingerprint

logger = logging.getLogger(__name__)

REPORTED_FILE = "reported"


@dataclass(frozen=True)
class Progress:
    """How far the open evaluations are: of the earliest, completions finished and wanted."""

    num_pending: int
    step: int
    completed: int
    total: int


@dataclass(frozen=True)
class Submission:
    """A request before its weights are hashed; `weights_fingerprint` where it is known already."""

    step: int
    model_dir: str
    problems: Sequence[Problem]
    prompt_name: str
    form: str
    sampling: Sampling
    weights_fingerprint: str | None = None

    def request(self, fingerprint: str, problems: str) -> EvaluationRequest:
        """The request, now that all of it is known."""
        return EvaluationRequest(
            step=self.step,
            model_dir=self.model_dir,
            weights_fingerprint=fingerprint,
            prompt_name=self.prompt_name,
            form=self.form,
            sampling=self.sampling,
            problems_file=problems_file(problems),
            num_problems=len(self.problems),
        )


class Watcher:
    """The open evaluations of a run, and what each waits for."""

    def __init__(
        self,
        run_dir: Path,
        *,
        grade_many: GradeMany,
        deliver: Callable[[EvaluationResult], None],
        training_prompt: str | None = None,
        on_done: Callable[[EvaluationRequest], None] | None = None,
    ) -> None:
        """`deliver` gets every result, one for each request."""
        self.queue = EvaluationQueue(run_dir)
        self.open: dict[Path, QueuedRequest] = {}
        self.worker: WorkerProcess | None = None  # the one to tend
        self._run_dir = run_dir
        self._grade_many = grade_many
        self._deliver = deliver
        self._training_prompt = training_prompt
        self._on_done = on_done

    def recover(self) -> None:
        """Take up what an earlier attempt of the run left: open, ungraded or not yet logged."""
        for queued in self.queue.requests():
            if queued.failure() is None and not (queued.directory / REPORTED_FILE).exists():
                self._take(queued)

    def submit(self, submission: Submission) -> None:
        """Write the request, or deliver why that is impossible."""
        problems = problems_text(submission.problems)
        try:
            known = submission.weights_fingerprint
            fingerprint = known or weights_fingerprint(submission.model_dir)
            request = submission.request(fingerprint, problems)
            queued = self.queue.submit(request, problems)
        except (SftDistError, OSError) as error:
            request = submission.request(submission.weights_fingerprint or "", problems)
            self._deliver(EvaluationResult(request.step, request, error=str(error)))
            self._tell_done(request)
            return
        self._take(queued)

    def tick(self) -> None:
        """Look once at everything that is open."""
        if self.worker is not None:
            self.worker.tend()
        for queued in sorted(self.open.values(), key=lambda item: item.request.step):
            result = self._look(queued)
            if result is not None:
                self._deliver(result)
                del self.open[queued.directory]
                self._settle(queued)

    def progress(self) -> Progress | None:
        """Of the earliest open evaluation; None when none is open."""
        if not self.open:
            return None
        first = min(self.open.values(), key=lambda item: item.request.step)
        request = first.request
        return Progress(len(self.open), request.step, first.progress(), request.num_problems)

    def mark_reported(self, result: EvaluationResult) -> None:
        """Remember that the result is in the records, so that no restart delivers it again."""
        if result.error is None and result.request is not None:
            (result.request.directory(self._run_dir) / REPORTED_FILE).touch()

    def _take(self, queued: QueuedRequest) -> None:
        stored = stored_result(queued, self._run_dir) if queued.is_graded else None
        if stored is None:
            self.open[queued.directory] = queued
        else:
            self._deliver(stored)
            self._settle(queued)

    def _look(self, queued: QueuedRequest) -> EvaluationResult | None:
        """The result of one request, or its end in failure; None while it is under way."""
        if queued.is_published:
            if self.worker is not None:
                self.worker.note_progress()
            return self._score(queued)
        reason = queued.failure()
        if reason is None and self.worker is not None:
            reason = self.worker.failure
        if reason is None:
            return None
        return EvaluationResult(queued.request.step, queued.request, error=reason)

    def _score(self, queued: QueuedRequest) -> EvaluationResult:
        try:
            return score(
                queued, self._run_dir, self._grade_many, training_prompt=self._training_prompt
            )
        except (SftDistError, OSError) as error:  # completions stay; the next start grades them
            return EvaluationResult(queued.request.step, queued.request, error=str(error))

    def _settle(self, queued: QueuedRequest) -> None:
        """A request left the list; if it is still open on disk, a later start needs its weights."""
        if not queued.is_open:
            self._tell_done(queued.request)

    def _tell_done(self, request: EvaluationRequest) -> None:
        """Tell the owner of the weights, unless another request needs them."""
        needed = {other.request.model_dir for other in self.open.values()}
        if self._on_done is None or request.model_dir in needed:
            return
        try:
            self._on_done(request)
        except OSError as error:
            logger.warning("cleaning up after step %d: %s", request.step, error)
