"""Completions and grades -> the numbers of one evaluation. Pure.

A metric that is undefined (the mean length of no correct responses) is left out: never NaN.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sft_dist.evaluation.generator import Completion
from sft_dist.evaluation.request import EvaluationRequest, Problem


@dataclass(frozen=True)
class GradeRow:
    """One row of grades.jsonl. Rewards are 0 or 1; `verdict` and `stage` are the grader's."""

    id: str
    verdict: str
    stage: str | None
    extracted: str | None
    gold: str | None
    format_reward: float
    answer_reward: float
    reward: float

    @property
    def is_correct(self) -> bool:
        """Counts towards accuracy."""
        return self.answer_reward == 1.0


@dataclass(frozen=True)
class Scored:
    """One problem with what became of it."""

    problem: Problem
    completion: Completion
    grade: GradeRow


def scored(
    problems: Sequence[Problem], completions: Sequence[Completion], grades: Sequence[GradeRow]
) -> list[Scored]:
    """Bring the three together by id, in the order of the problems.

    Raises ValueError unless all three hold the same ids, each once.
    """
    by_id = {completion.id: completion for completion in completions}
    grade_of = {grade.id: grade for grade in grades}
    ids = [problem.id for problem in problems]
    if not (
        set(ids) == set(by_id) == set(grade_of) and len(ids) == len(completions) == len(grades)
    ):
        raise ValueError(
            f"expected one completion and one grade for each of {len(ids)} problems, "
            f"found {len(completions)} and {len(grades)}"
        )
    return [Scored(problem, by_id[problem.id], grade_of[problem.id]) for problem in problems]


def summarize(
    request: EvaluationRequest,
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    grades: Sequence[GradeRow],
    *,
    training_prompt: str | None = None,
) -> dict[str, float]:
    """The `eval/*` metrics; `eval/<prompt>/*` when the prompt is not the training prompt."""
    is_other = training_prompt is not None and request.prompt_name != training_prompt
    prefix = f"eval/{request.prompt_name}/" if is_other else "eval/"
    values = _metrics(scored(problems, completions, grades))
    return {prefix + name: value for name, value in values.items() if value is not None}


def breakdown(rows: Iterable[Scored]) -> dict[str, Any]:
    """Counts by verdict, and number, accuracy and standard error by subject and by level."""
    rows = list(rows)
    return {
        "verdicts": dict(Counter(row.grade.verdict for row in rows).most_common()),
        "by_subject": _table(rows, lambda row: row.problem.subject or "unknown"),
        "by_level": _table(rows, lambda row: str(row.problem.level or "unknown")),
    }


def sample_rows(rows: Sequence[Scored], count: int = 8) -> list[dict[str, Any]]:
    """Rows for the sample table: evenly spaced, so the same problems at every step."""
    chosen = sorted({i * len(rows) // count for i in range(count)}) if rows else []
    return [_sample_row(rows[i]) for i in chosen]


def _sample_row(row: Scored) -> dict[str, Any]:
    return {
        "id": row.problem.id,
        "prompt": row.problem.prompt,
        "response": row.completion.response,
        "gold": row.grade.gold,
        "extracted": row.grade.extracted,
        "verdict": row.grade.verdict,
        "format_reward": row.grade.format_reward,
        "answer_reward": row.grade.answer_reward,
        "reward": row.grade.reward,
        "token_entropy": row.completion.mean_token_entropy,
        "response_length": row.completion.num_tokens,
    }


def _metrics(rows: Sequence[Scored]) -> Mapping[str, float | None]:
    lengths = [row.completion.num_tokens for row in rows]
    correct = [row.completion.num_tokens for row in rows if row.grade.is_correct]
    wrong = [row.completion.num_tokens for row in rows if not row.grade.is_correct]
    accuracy = _mean([row.grade.answer_reward for row in rows])
    return {
        "accuracy": accuracy,
        "accuracy_stderr": _standard_error(accuracy, len(rows)),
        "avg_format_reward": _mean([row.grade.format_reward for row in rows]),
        "avg_answer_reward": accuracy,
        "avg_token_entropy": _token_entropy(rows),
        "avg_response_length": _mean(lengths),
        "avg_response_length_correct": _mean(correct),
        "avg_response_length_wrong": _mean(wrong),
        "truncated_rate": _mean([row.completion.finish_reason == "length" for row in rows]),
        "no_answer_rate": _mean([row.grade.verdict == "no_answer" for row in rows]),
        "unparseable_rate": _mean([row.grade.verdict == "unparseable" for row in rows]),
        "timeout_rate": _mean([row.grade.verdict == "timeout" for row in rows]),
        "num_problems": len(rows),
    }


def _token_entropy(rows: Sequence[Scored]) -> float | None:
    """Mean over all generated tokens, so a long response weighs more than a short one."""
    parts = [
        (row.completion.mean_token_entropy, row.completion.num_tokens)
        for row in rows
        if row.completion.mean_token_entropy is not None
    ]
    tokens = sum(number for _, number in parts)
    return sum(mean * number for mean, number in parts) / tokens if tokens else None


def _table(rows: Sequence[Scored], key: Callable[[Scored], str]) -> dict[str, dict[str, Any]]:
    table = {}
    for name in sorted({key(row) for row in rows}):
        answers = [row.grade.answer_reward for row in rows if key(row) == name]
        accuracy = _mean(answers)
        stderr = _standard_error(accuracy, len(answers))
        table[name] = {"num_problems": len(answers), "accuracy": accuracy, "stderr": stderr}
    return table


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _standard_error(rate: float | None, count: int) -> float | None:
    """Of a rate of independent successes: sqrt(p (1 - p) / n)."""
    return math.sqrt(rate * (1.0 - rate) / count) if rate is not None else None
