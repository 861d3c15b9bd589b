"""The process in which Math-Verify is asked; see `second`. Not for use by hand.

Its own time limits are off: they use a signal, which one long call in C ignores. The pool at the
other end keeps the deadline by killing this process, and limits its memory.
"""

import logging
from typing import Any

from math_verify import parse, verify

from sft_dist.grading.grader import Grade
from sft_dist.grading.worker import serve_pool


def ask(task: dict[str, Any]) -> Grade:
    """Give Math-Verify's opinion on an answer that is already extracted (as `response`)."""
    answer, gold = task["response"], task["gold"]
    accepted = verify(
        parse(f"${gold}$", parsing_timeout=None),
        parse(f"\\boxed{{{answer}}}", parsing_timeout=None),
        timeout_seconds=None,
    )
    return Grade("correct" if accepted else "wrong", True, answer, "math_verify")


if __name__ == "__main__":
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of missing time limits
    parse("$1$", parsing_timeout=None)  # its parser loads on first use; not on a task's time
    serve_pool(ask)
