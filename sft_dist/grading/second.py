"""A second grader's opinion: Math-Verify, in processes of its own that can be killed.

    second_opinions([(response, gold), ...], form="boxed") -> [True, False, None, ...]

It is never imported here: it may take seconds for one answer, and its time limits need the main
thread. What it accepts is an opinion, not the truth; docs/grading.md says where it is wrong.
"""

import importlib.util
import os
import threading
from collections.abc import Sequence

from sft_dist.errors import EvaluationError
from sft_dist.grading.extract import extract_boxed
from sft_dist.grading.grader import Form, Grade, extract_answer
from sft_dist.grading.pool import GradingPool, command_of

_OPINIONS = {"correct": True, "wrong": False}
_DEFAULT_SECONDS = 5.0


class NoSecondGraderError(EvaluationError, ImportError):
    """Math-Verify is not installed."""


def second_opinions(
    pairs: Sequence[tuple[str, str]],
    *,
    form: Form = "boxed",
    num_workers: int = 2,
    timeout_seconds: float = _DEFAULT_SECONDS,
) -> list[bool | None]:
    """Ask Math-Verify about `(response, gold)` pairs, in their order.

    It gets the answer that our own extraction finds, so what differs is the comparison alone; a
    response without an answer is False. None: it ran past `timeout_seconds`, or died.

    Raises:
        NoSecondGraderError: Math-Verify is not installed.
        EvaluationError: Its processes cannot be started.
    """
    answers = [extract_answer(response, form=form)[0] for response, _ in pairs]
    asked = [index for index, answer in enumerate(answers) if answer and answer.strip()]
    tasks = [(answers[index] or "", _unboxed(pairs[index][1])) for index in asked]
    opinions: list[bool | None] = [False] * len(pairs)
    with open_second_pool(num_workers, timeout_seconds) as pool:
        for index, grade in zip(asked, pool.grade_many(tasks), strict=True):
            opinions[index] = _opinion(grade)
    return opinions


def open_second_pool(num_workers: int, timeout_seconds: float) -> GradingPool:
    """Return a pool whose workers give Math-Verify's opinion on (answer, gold) pairs.

    Raises:
        NoSecondGraderError: Math-Verify is not installed.
    """
    if importlib.util.find_spec("math_verify") is None:
        raise NoSecondGraderError(
            "Math-Verify was asked for a second opinion, and it is not installed; run "
            "`pip install math-verify[antlr4_13_2]`, or do not ask for one (fast=True, "
            "--second_grader none)"
        )
    command = command_of("sft_dist.grading.second_worker")
    return GradingPool(num_workers, timeout_seconds, worker_command=command)


class _KeptPool:
    """One process for opinions asked one by one, from any thread; a forked child makes its own.

    Nothing closes it: a worker ends when its standard input does, with the process that asks.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: GradingPool | None = None
        self._owner = 0

    def ask(self, answer: str, gold: str) -> bool | None:
        with self._lock:
            if self._pool is None or self._owner != os.getpid():
                self._pool, self._owner = open_second_pool(1, _DEFAULT_SECONDS), os.getpid()
            return _opinion(self._pool.grade_many([(answer, gold)])[0])

    def renew_lock(self) -> None:
        """A lock that another thread held when the process forked would never be free."""
        self._lock = threading.Lock()


_KEPT = _KeptPool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_KEPT.renew_lock)


def second_opinion(answer: str, gold: str) -> bool | None:
    """Ask about one extracted answer; the first call starts a process that is kept.

    Raises:
        NoSecondGraderError: Math-Verify is not installed.
        EvaluationError: Its process cannot be started.
    """
    return _KEPT.ask(answer, gold)


def _opinion(grade: Grade) -> bool | None:
    return _OPINIONS.get(grade.verdict)


def _unboxed(gold: str) -> str:
    boxed = extract_boxed(gold)
    return gold if boxed is None else boxed
