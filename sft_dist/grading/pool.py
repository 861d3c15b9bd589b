"""Grade many responses in worker processes that can be killed.

A worker is an ordinary subprocess that speaks lines of JSON: it needs no signal, no fork and no
importable `__main__`, so the pool works from any thread and from any process. The deadline is kept
from outside; a worker that is stuck is killed, one that died is replaced, and only the response it
was busy with is affected.
"""

import logging
import selectors
import sys
from collections import Counter, deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from sft_dist.errors import EvaluationError
from sft_dist.grading.grader import Form, Grade, extract_answer
from sft_dist.grading.worker_process import WorkerProcess

logger = logging.getLogger(__name__)

_MAX_STARTS_WITHOUT_ANSWER = 3
_MAX_ATTEMPTS = 2  # a response whose worker died is tried once more
_MAX_MEMORY_BYTES = 1 << 30


class GradingPool:
    """A reusable set of grading processes; use it as a context manager.

    Args:
        num_workers: Processes; started when first needed.
        timeout_seconds: Wall-clock limit for one response, kept by killing the worker.
        worker_command: Another program that speaks the worker's protocol.
    """

    def __init__(
        self,
        num_workers: int = 2,
        timeout_seconds: float = 5.0,
        *,
        worker_command: Sequence[str] | None = None,
    ) -> None:
        if num_workers < 1 or timeout_seconds <= 0:
            raise ValueError(
                "expected num_workers >= 1 and timeout_seconds > 0, "
                f"found {num_workers} and {timeout_seconds}"
            )
        self._num_workers = num_workers
        self._timeout_seconds = timeout_seconds
        self._command = list(worker_command or command_of("sft_dist.grading.worker"))
        self.workers: list[WorkerProcess] = []

    def __enter__(self) -> "GradingPool":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers. The pool can be used again; it starts new ones."""
        for worker in self.workers:
            worker.kill()
        self.workers.clear()

    def grade_many(self, pairs: Sequence[tuple[str, str]], *, form: Form = "boxed") -> list[Grade]:
        """Grade `(response, gold)` pairs; the result has their order.

        A response over the deadline is `timeout`; one whose worker died twice, or that raised, is
        `unparseable`; both have the stage `worker`. Not for use by two threads at once.

        Raises:
            EvaluationError: Workers cannot be started at all.
            ValueError: `form` is unknown.
        """
        extract_answer("", form=form)  # an unknown form is the caller's fault, not a worker's
        run = _Run(pairs, form, self._timeout_seconds)
        try:
            self._drive(run)
        except BaseException:
            self.close()  # answers still under way would be taken for those of the next call
            raise
        counts = Counter(grade.verdict for grade in run.results())
        told = ", ".join(f"{n} {verdict.replace('_', ' ')}" for verdict, n in counts.most_common())
        logger.info("graded %d responses: %s", len(pairs), told)
        return run.results()

    def _drive(self, run: "_Run") -> None:
        starts_left = _MAX_STARTS_WITHOUT_ANSWER * self._num_workers
        while not run.finished():
            wanted = min(self._num_workers, run.num_unfinished())
            while len(self.workers) < wanted:
                if starts_left == 0:
                    raise EvaluationError(_cannot_start(self._command))
                starts_left -= 1
                self.workers.append(WorkerProcess(self._command))
            for worker in self.workers:
                run.assign(worker)
            if self._collect(run):
                starts_left = _MAX_STARTS_WITHOUT_ANSWER * self._num_workers

    def _collect(self, run: "_Run") -> bool:
        """Wait for the next event and handle all that happened; True if a response was settled."""
        before = run.num_unfinished()
        with selectors.DefaultSelector() as selector:
            for worker in self.workers:
                selector.register(worker.output, selectors.EVENT_READ, worker)
            wait = min(worker.seconds_left() for worker in self.workers)
            ready = {id(key.data) for key, _ in selector.select(max(0.0, wait))}
        for worker in list(self.workers):
            if id(worker) in ready:
                usable = run.take_answers(worker)
            else:
                usable = worker.seconds_left() > 0
                if not usable:
                    run.give_up_late(worker)
            if not usable:
                worker.kill()
                self.workers.remove(worker)
        return run.num_unfinished() < before


class _Run:
    """The bookkeeping of one `grade_many`: which responses wait, which are settled."""

    def __init__(
        self, pairs: Sequence[tuple[str, str]], form: Form, timeout_seconds: float
    ) -> None:
        self._pairs = pairs
        self._form = form
        self._timeout_seconds = timeout_seconds
        self._waiting = deque(range(len(pairs)))
        self._settled: dict[int, Grade] = {}
        self._attempts: Counter[int] = Counter()

    def finished(self) -> bool:
        return len(self._settled) == len(self._pairs)

    def num_unfinished(self) -> int:
        return len(self._pairs) - len(self._settled)

    def results(self) -> list[Grade]:
        return [self._settled[index] for index in range(len(self._pairs))]

    def assign(self, worker: "WorkerProcess") -> None:
        if worker.idle() and self._waiting:
            index = self._waiting.popleft()
            response, gold = self._pairs[index]
            self._attempts[index] += 1
            task = {"response": response, "gold": gold, "form": self._form}
            worker.send(index, task, timeout_seconds=self._timeout_seconds)

    def take_answers(self, worker: WorkerProcess) -> bool:
        """Settle what the worker finished; False if it is dead."""
        answers = worker.read_answers()
        if answers is None:
            if worker.task is not None:
                self._retry_or_give_up(worker.task)
            return False
        for index, answer in answers:
            self._settle(index, answer)
        return True

    def give_up_late(self, worker: WorkerProcess) -> None:
        """Settle the response that ran past its deadline; a worker that never started has none."""
        if worker.task is not None:
            logger.warning("grading one response took over %g s", self._timeout_seconds)
            self._give_up(worker.task, "timeout")

    def _settle(self, index: int, answer: dict[str, Any]) -> None:
        if "error" in answer:
            logger.error("grading raised %s; response counted as unparseable", answer["error"])
            self._give_up(index, "unparseable")
        else:
            self._settled[index] = Grade(**answer)

    def _give_up(self, index: int, verdict: Any) -> None:
        extracted, format_ok = extract_answer(self._pairs[index][0], form=self._form)
        self._settled[index] = Grade(verdict, format_ok, extracted, "worker")

    def _retry_or_give_up(self, index: int) -> None:
        if self._attempts[index] < _MAX_ATTEMPTS:
            self._waiting.appendleft(index)
        else:
            logger.error("the grading worker died twice on one response; counted as unparseable")
            self._give_up(index, "unparseable")


def command_of(module: str) -> list[str]:
    """The command of a worker whose main is `module`, with its limit of memory."""
    return [sys.executable, "-P", "-m", module, str(_MAX_MEMORY_BYTES)]


def _cannot_start(command: Sequence[str]) -> str:
    return (
        "expected grading workers to start, but they ended or stayed silent; "
        f"run this by hand to see why: {' '.join(command)}"
    )
