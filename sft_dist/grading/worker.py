"""The process that `GradingPool` starts: reads one task a line, writes one grade a line.

    python -m sft_dist.grading.worker MAX_MEMORY_BYTES

Not for use by hand. It ends when its standard input ends, so it never outlives its pool.
"""

import contextlib
import json
import signal
import sys
from dataclasses import asdict
from typing import Any, TextIO

from sft_dist.grading.grader import grade


def serve(tasks: TextIO, answers: TextIO) -> None:
    """Answer every line of `tasks`; the first line written says that the worker is ready."""
    answers.write("ready\n")
    answers.flush()
    for line in tasks:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


def _answer(task: dict[str, Any]) -> dict[str, Any]:
    try:
        return asdict(grade(task["response"], task["gold"], form=task["form"]))
    except Exception as error:  # the named border: a defect here must not cost the other grades
        return {"error": f"{type(error).__name__}: {error}"}


def _limit_memory(max_bytes: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the pool, which ends its workers
    _limit_memory(int(sys.argv[1]))
    answers_stream, sys.stdout = sys.stdout, sys.stderr  # nothing else may write among the answers
    serve(sys.stdin, answers_stream)
