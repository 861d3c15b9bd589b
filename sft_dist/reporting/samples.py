"""Problems and responses for the page: packed per evaluation, within the size of the page."""

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sft_dist.reporting.graded import Answer, Problems
from sft_dist.reporting.run_files import text

BUDGET = 12_000_000
"""Characters of all packed parts of a page; the page itself must stay below 15 MB."""

HEAD, TAIL = 6000, 3000
"""Characters kept of a longer response: how it begins, and its end with the answer."""

LEVEL = 4
"""Of gzip: half the time of the default for 4 % more bytes of such texts."""

LEAST_RATIO = 12
"""No such text packs better (measured: 3 to 5); what cannot fit is not tried."""


@dataclass
class Packed:
    """The packed parts of a page by name, and how many characters are left for more.

    A part is the base64 of a gzipped JSON object: `{column: [value of each row]}`.
    """

    budget: int = BUDGET
    parts: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, columns: dict[str, list[Any]]) -> bool:
        """Pack `columns` as part `name`; False, and nothing is kept, when it does not fit."""
        content = json.dumps(columns, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", errors="replace"
        )
        if len(content) > self.budget * LEAST_RATIO:
            return False
        packed = base64.b64encode(gzip.compress(content, LEVEL, mtime=0)).decode("ascii")
        if len(packed) > self.budget:
            return False
        self.budget -= len(packed)
        self.parts[name] = packed
        return True


def problem_columns(problems: Problems) -> dict[str, list[Any]]:
    """What the page shows of the problems, in their order."""
    rows = problems.rows
    return {
        "id": [row["id"] for row in rows],
        "problem": [text(row.get("problem")) or text(row.get("prompt")) or "" for row in rows],
        "answer": [text(row.get("answer")) for row in rows],
        "subject": [problems.subject(i) for i in range(len(rows))],
        "level": [problems.level(i) for i in range(len(rows))],
    }


def answer_columns(answers: Sequence[Answer]) -> dict[str, list[Any]]:
    """What the page shows of the answers, in their order."""
    return {
        "problem": [a.problem for a in answers],
        "sample": [a.sample for a in answers],
        "response": [shortened(a.response) for a in answers],
        "tokens": [a.num_tokens for a in answers],
        "finish": [a.finish_reason for a in answers],
        "entropy": [None if a.entropy is None else round(a.entropy, 4) for a in answers],
        "verdict": [a.verdict for a in answers],
        "stage": [a.stage for a in answers],
        "extracted": [None if a.extracted is None else shortened(a.extracted) for a in answers],
        "format": [int(a.format_ok) for a in answers],
        "right": [int(a.right) for a in answers],
    }


def shortened(response: str) -> str:
    """A response whose middle is left out when it is very long."""
    left_out = len(response) - HEAD - TAIL
    if left_out <= 0:
        return response
    return f"{response[:HEAD]}\n[... {left_out:,} characters left out ...]\n{response[-TAIL:]}"


def evenly(answers: Sequence[Answer], count: int) -> list[Answer]:
    """`count` of the answers, evenly spaced."""
    chosen = sorted({i * len(answers) // count for i in range(count)}) if count else []
    return [answers[i] for i in chosen]
