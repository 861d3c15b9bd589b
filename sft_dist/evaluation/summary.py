"""Completions and grades -> the numbers of one evaluation. Pure.

A metric that is undefined (the mean length of no correct responses) is left out: never NaN.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sft_dist.evaluation.request import EvaluationRequest
from sft_dist.evaluation.results import GradeRow, Scored
from sft_dist.evaluation.statistics import (
    mean,
    pass_at_k,
    reported_ks,
    shares_by_problem,
    standard_error,
    weighted_mean,
    wilson_interval,
)

MAX_GROUPS = 16
"""More subjects than that are in summary.json only: one curve each would bury the others."""


def metric_prefix(request: EvaluationRequest, training_prompt: str | None) -> str:
    """`eval/`, or `eval/<prompt>/` when the prompt is not the training prompt."""
    is_other = training_prompt is not None and request.prompt_name != training_prompt
    return f"eval/{request.prompt_name}/" if is_other else "eval/"


def summarize(
    request: EvaluationRequest, rows: Sequence[Scored], *, training_prompt: str | None = None
) -> dict[str, float]:
    """The metrics of one evaluation, by their full names."""
    prefix = metric_prefix(request, training_prompt)
    values = {**_metrics(rows), **_pass_rates(rows), **_accuracies_by_group(rows)}
    return {prefix + name: value for name, value in values.items() if value is not None}


def identity(
    request: EvaluationRequest, *, training_prompt: str | None, grader_version: str
) -> dict[str, str]:
    """What a row of metrics is about, by the same names: prompt, decoding, grader, weights."""
    prefix = metric_prefix(request, training_prompt)
    return {
        f"{prefix}prompt": request.prompt_name,
        f"{prefix}decoding": request.sampling.describe(),
        f"{prefix}grader_version": grader_version,
        f"{prefix}weights_fingerprint": request.weights_fingerprint,
    }


def breakdown(rows: Iterable[Scored]) -> dict[str, Any]:
    """Counts by verdict; number of problems, accuracy and its bounds by subject and by level."""
    rows = list(rows)
    return {
        "verdicts": dict(Counter(row.grade.verdict for row in rows).most_common()),
        "by_subject": _table(rows, _subject),
        "by_level": _table(rows, _level),
    }


def shares(grades: Iterable[GradeRow]) -> dict[str, float]:
    """Each problem's share of right answers, by id."""
    return shares_by_problem((grade.id, grade.answer_reward) for grade in grades)


def _metrics(rows: Sequence[Scored]) -> dict[str, float | None]:
    correct = [row.completion.num_tokens for row in rows if row.grade.is_correct]
    wrong = [row.completion.num_tokens for row in rows if not row.grade.is_correct]
    return {
        **_accuracy(rows),
        "avg_format_reward": mean([row.grade.format_reward for row in rows]),
        "avg_answer_reward": mean([row.grade.answer_reward for row in rows]),
        "avg_token_entropy": _token_entropy(rows),
        "avg_response_length": mean([row.completion.num_tokens for row in rows]),
        "avg_response_length_correct": mean(correct),
        "avg_response_length_wrong": mean(wrong),
        "truncated_rate": mean([row.completion.finish_reason == "length" for row in rows]),
        **{f"{verdict}_rate": _verdict_rate(rows, verdict) for verdict in _VERDICTS},
        "num_problems": len({row.problem.id for row in rows}),
    }


_VERDICTS = ("wrong", "no_answer", "unparseable", "timeout")


def _verdict_rate(rows: Sequence[Scored], verdict: str) -> float | None:
    return mean([row.grade.verdict == verdict for row in rows])


def _accuracy(rows: Iterable[Scored]) -> dict[str, float | None]:
    """Accuracy, its standard error and its 95 % interval, which counts problems, not answers."""
    by_problem = list(shares(row.grade for row in rows).values())
    accuracy = mean(by_problem)
    low, high = (None, None) if accuracy is None else wilson_interval(accuracy, len(by_problem))
    return {
        "accuracy": accuracy,
        "accuracy_stderr": standard_error(by_problem),
        "accuracy_low": low,
        "accuracy_high": high,
    }


def _pass_rates(rows: Sequence[Scored]) -> Mapping[str, float | None]:
    """pass@k over problems, where several answers were drawn to each."""
    answers: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        answers[row.problem.id].append(row.grade.is_correct)
    drawn = max((len(found) for found in answers.values()), default=0)
    return {
        f"pass_at_{k}": mean([pass_at_k(drawn, sum(found), k) for found in answers.values()])
        for k in (reported_ks(drawn) if drawn > 1 else ())
    }


def _accuracies_by_group(rows: Sequence[Scored]) -> dict[str, float]:
    found: dict[str, float] = {}
    for title, key in (("level", _level), ("subject", _subject)):
        table = _table(rows, key)
        if len(table) <= MAX_GROUPS:
            found |= {f"accuracy_{title}_{_slug(k)}": row["accuracy"] for k, row in table.items()}
    return found


def _slug(name: str) -> str:
    """`counting_probability` from "Counting & Probability": a part of a metric's name."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "unknown"


def _subject(row: Scored) -> str:
    return row.problem.subject or "unknown"


def _level(row: Scored) -> str:
    return str(row.problem.level or "unknown")


def _token_entropy(rows: Sequence[Scored]) -> float | None:
    """Mean over all generated tokens, so a long response weighs more than a short one."""
    return weighted_mean(
        (row.completion.mean_token_entropy, row.completion.num_tokens)
        for row in rows
        if row.completion.mean_token_entropy is not None
    )


def _table(rows: Sequence[Scored], key: Callable[[Scored], str]) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Scored]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return {
        name: {"num_problems": len({row.problem.id for row in groups[name]})}
        | {k.replace("accuracy_", ""): value for k, value in _accuracy(groups[name]).items()}
        for name in sorted(groups)
    }
