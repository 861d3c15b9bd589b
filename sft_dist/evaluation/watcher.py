"""What the client's thread does: write requests, tend the worker, grade what was published.

Nothing here knows of threads; each call does its work and returns.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sft_dist.errors import SftDistError
from sft_dist.evaluation.queue import (
    FAILURE_FILE,
    REPORTED_FILE,
    EvaluationQueue,
    QueuedRequest,
)
from sft_dist.evaluation.request import (
    EvaluationRequest,
    Problem,
    Sampling,
    problems_file,
    problems_text,
)
from sft_dist.evaluation.scoring import EvaluationResult, GradeMany, score, stored_result
from sft_dist.evaluation.worker_group import Worker
from sft_dist.fingerprint import weights_fingerprint

logger = logging.getLogger(__name__)

BY_TRAINER, BY_SERVER = "trainer\n", "server\n"
"""The content of the file that says that a request is reported: who did."""


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
        on_done: Callable[[str], None] | None = None,
        is_trainer: bool = True,
    ) -> None:
        """`deliver` gets every result, one for each request."""
        self._is_trainer = is_trainer
        self._settled: set[Path] = set()
        self.queue = EvaluationQueue(run_dir)
        self.open: dict[Path, QueuedRequest] = {}
        self.worker: Worker | None = None  # the one to tend
        self._run_dir = run_dir
        self._grade_many = grade_many
        self._deliver = deliver
        self._training_prompt = training_prompt
        self._on_done = on_done

    def recover(self) -> None:
        """Take up what an earlier attempt of the run left: open, ungraded, failed, not logged."""
        for queued in self.queue.requests():
            if not self._is_reported(queued):
                self.open[queued.directory] = queued

    def all_settled(self) -> bool:
        """Whether every request of the run is reported, its result or its failure."""
        for queued in self.queue.requests(skip=self._settled.__contains__):
            if not (queued.directory / REPORTED_FILE).exists():
                return False
            if queued.is_published:  # one that was given up may be opened again
                self._settled.add(queued.directory)
        return True

    def submit(self, submissions: Sequence[Submission]) -> None:
        """Write the requests, or deliver why that is impossible."""
        fingerprints: dict[str, str] = {}
        written = [self._write(submission, fingerprints) for submission in submissions]
        self.open |= {queued.directory: queued for queued in written if queued is not None}
        for submission, queued in zip(submissions, written, strict=True):
            if queued is None:
                self._tell_done(submission.model_dir)

    def _write(self, submission: Submission, fingerprints: dict[str, str]) -> QueuedRequest | None:
        """Write one request; `fingerprints` are those known by model directory."""
        problems = problems_text(submission.problems)
        directory = submission.model_dir
        try:
            known = submission.weights_fingerprint or fingerprints.get(directory)
            fingerprints[directory] = known or weights_fingerprint(directory)
            request = submission.request(fingerprints[directory], problems)
            return self.queue.submit(request, problems)
        except (SftDistError, OSError) as error:
            request = submission.request(submission.weights_fingerprint or "", problems)
            self._deliver(EvaluationResult(request.step, request, error=str(error)))
            return None

    def tick(self, *, may_grade: bool = True) -> None:
        """Tend the worker and, with `may_grade`, look once at everything that is open."""
        if self.worker is not None:
            self.worker.tend()
        if not may_grade:
            return
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
        return Progress(len(self.open), request.step, first.progress(), request.num_completions)

    def mark_reported(self, result: EvaluationResult) -> None:
        """Remember that the result is in the records, so that no restart delivers it again.

        An error that says nothing against the request (the worker was given up) leaves it open.
        """
        if result.request is None:
            return
        directory = result.request.directory(self._run_dir)
        if result.error is None or (directory / FAILURE_FILE).exists():
            (directory / REPORTED_FILE).write_text(BY_TRAINER if self._is_trainer else BY_SERVER)

    def _is_reported(self, queued: QueuedRequest) -> bool:
        """A trainer reports once more what a server did: the record has it, wandb has not."""
        path = queued.directory / REPORTED_FILE
        if not path.exists():
            return False
        return not self._is_trainer or path.read_text() != BY_SERVER

    def _look(self, queued: QueuedRequest) -> EvaluationResult | None:
        """The result of one request, or its end in failure; None while it is under way."""
        if queued.is_published:
            if self.worker is not None:
                self.worker.note_progress()
            return self._stored(queued) or self._score(queued)
        reason = queued.failure()
        if reason is None and self.worker is not None:
            reason = self.worker.failure
        if reason is None:
            return None
        return EvaluationResult(queued.request.step, queued.request, error=reason)

    def _stored(self, queued: QueuedRequest) -> EvaluationResult | None:
        if not queued.is_graded:
            return None
        return stored_result(queued, self._run_dir, training_prompt=self._training_prompt)

    def _score(self, queued: QueuedRequest) -> EvaluationResult:
        _tell_faults(queued)
        try:
            return score(
                queued, self._run_dir, self._grade_many, training_prompt=self._training_prompt
            )
        except (SftDistError, OSError) as error:  # completions stay; the next start grades them
            return EvaluationResult(queued.request.step, queued.request, error=str(error))

    def _settle(self, queued: QueuedRequest) -> None:
        """A request left the list; if it is still open on disk, a later start needs its weights."""
        if not queued.is_open:
            self._tell_done(queued.request.model_dir)

    def _tell_done(self, model_dir: str) -> None:
        """Tell the owner of the weights, unless another request needs them."""
        needed = {other.request.model_dir for other in self.open.values()}
        if self._on_done is None or model_dir in needed:
            return
        try:
            self._on_done(model_dir)
        except OSError as error:
            logger.warning("cleaning up %s: %s", model_dir, error)


def _tell_faults(queued: QueuedRequest) -> None:
    """What went wrong before it went right: scored in the end, but not to be overlooked."""
    step = queued.request.step
    for failed in queued.failed_attempts():
        logger.error("evaluation of step %d was done again; %s", step, failed)
    fault = queued.published_facts().get("reload_fault")
    if fault is not None:
        logger.error(
            "evaluation of step %d: a new engine was built for it, as weights cannot be changed in "
            "place here (self-test: %s)", step, fault,
        )  # fmt: skip
