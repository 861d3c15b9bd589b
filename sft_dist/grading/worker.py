"""The process that `GradingPool` starts: reads one task a line, writes one grade a line.

    python -m sft_dist.grading.worker MAX_MEMORY_BYTES

Not for use by hand. It ends when its standard input ends, so it never outlives its pool.
"""

import contextlib
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TextIO

from sft_dist.grading.grader import Grade, grade

Judge = Callable[[dict[str, Any]], Grade]


def grade_task(task: dict[str, Any]) -> Grade:
    """Grade one task."""
    return grade(task["response"], task["gold"], form=task["form"])


def serve(tasks: TextIO, answers: TextIO, judge: Judge = grade_task) -> None:
    """Answer every line of `tasks`; the first line written says that the worker is ready."""
    answers.write("ready\n")
    answers.flush()
    for line in tasks:
        answers.write(json.dumps(_answer(judge, json.loads(line))) + "\n")
        answers.flush()


def serve_pool(judge: Judge) -> None:
    """Serve the pool at the other end of the standard streams; for the main of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the pool, which ends its workers
    _limit_memory(int(sys.argv[1]))
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing else may write among the answers
    serve(sys.stdin, answers, judge)


def _answer(judge: Judge, task: dict[str, Any]) -> dict[str, Any]:
    try:
        return asdict(judge(task))
    except Exception as error:  # the named border: a defect here must not cost the other grades
        return {"error": f"{type(error).__name__}: {error}"}


def _limit_memory(max_bytes: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))


if __name__ == "__main__":
    serve_pool(grade_task)
