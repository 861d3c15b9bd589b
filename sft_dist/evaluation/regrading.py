"""Grade stored completions again: another grader version, or a second grader's opinion. No GPU."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from sft_dist.durable import read_json, write_atomically
from sft_dist.errors import EvaluationError
from sft_dist.evaluation.queue import COMPLETIONS_FILE, SUMMARY_FILE, EvaluationQueue, QueuedRequest
from sft_dist.evaluation.request import EVALUATIONS, read_problems
from sft_dist.evaluation.results import GradeRow, read_completions, read_grades
from sft_dist.evaluation.scoring import EvaluationResult, score
from sft_dist.grading import GradingPool
from sft_dist.grading.grader import Form

DISAGREEMENTS_FILE = "disagreements.jsonl"


@dataclass(frozen=True)
class Regraded:
    """What came of grading one evaluation again."""

    result: EvaluationResult
    accuracy_before: float | None
    changed: list[tuple[str, str, str]] = field(default_factory=list)
    """(problem id, verdict before, verdict now)."""


def regrade(path: Path, *, grading_workers: int = 2) -> Iterator[Regraded]:
    """Grade what was published below `path`; grades and summaries are replaced as a whole.

    Args:
        path: a run directory, its `evaluations`, or a directory in that.
        grading_workers: processes that grade.

    Raises:
        EvaluationError: when there are no stored completions.
    """
    run_dir = find_run_dir(path)
    stored = list(published(run_dir, path))
    if not stored:
        raise EvaluationError(f"expected {COMPLETIONS_FILE} below {path}, found none to grade")
    with GradingPool(grading_workers) as pool:
        for queued in stored:
            before = _verdicts(queued)
            summary = read_json(queued.directory / SUMMARY_FILE) or {}
            prompt = _training_prompt(summary, queued)
            result = score(
                queued, run_dir, lambda pairs, form: pool.grade_many(pairs, form=cast(Form, form)),
                training_prompt=prompt,
            )  # fmt: skip
            now = _verdicts(queued)
            changed = [(i, before[i], now[i]) for i in now if before.get(i, now[i]) != now[i]]
            accuracy = _accuracy(summary.get("metrics", {}))
            yield Regraded(result, accuracy, changed)


def disagreements(path: Path) -> Iterator[tuple[QueuedRequest, list[dict[str, Any]]]]:
    """Where Math-Verify judges otherwise than we did; also written to `disagreements.jsonl`.

    Raises:
        EvaluationError: when Math-Verify is not installed or nothing has been graded.
    """
    from sft_dist.grading.second import second_opinions

    run_dir = find_run_dir(path)
    for queued in published(run_dir, path):
        problems = {p.id: p for p in read_problems(run_dir / queued.request.problems_file)}
        responses = {(c.id, c.sample): c.response for c in read_completions(queued)}
        grades = read_grades(queued)
        pairs = [(responses[g.id, g.sample], g.gold or "") for g in grades]
        opinions = second_opinions(pairs, form=cast(Form, queued.request.form))
        rows = [
            {
                "id": _answer_id(grade),
                "problem": problems[grade.id].problem,
                "gold": grade.gold,
                "extracted": grade.extracted,
                "verdict": grade.verdict,
                "second": opinion,
            }
            for grade, opinion in zip(grades, opinions, strict=True)
            if opinion is not None and opinion != grade.is_correct
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write_atomically(queued.directory / DISAGREEMENTS_FILE, lines)
        yield queued, rows


def find_run_dir(path: Path) -> Path:
    """The run that `path` is, or lies in.

    Raises:
        EvaluationError: when it is no run and lies in none.
    """
    if (path / EVALUATIONS).is_dir():
        return path
    for parent in (path, *path.absolute().parents):
        if parent.name == EVALUATIONS:
            return parent.parent
    raise EvaluationError(f"expected a run directory or a path below its evaluations, found {path}")


def published(run_dir: Path, path: Path) -> Iterator[QueuedRequest]:
    """The requests below `path` whose completions are there, by step."""
    below = path.absolute()
    for queued in EvaluationQueue(run_dir.absolute()).requests():
        directory = queued.directory.absolute()
        inside = below in (directory, *directory.parents)
        if inside and queued.is_published:
            yield queued


def _verdicts(queued: QueuedRequest) -> dict[str, str]:
    try:
        return {_answer_id(grade): grade.verdict for grade in read_grades(queued)}
    except OSError:  # never graded
        return {}


def _answer_id(grade: GradeRow) -> str:
    """The problem's id; of a second or later answer to it, with its number."""
    return f"{grade.id} #{grade.sample}" if grade.sample else grade.id


def _training_prompt(summary: dict[str, Any], queued: QueuedRequest) -> str | None:
    """The prompt whose metrics go without its name: none when the stored ones have it."""
    named = any(name.count("/") == 2 for name in summary.get("metrics", {}))
    return "" if named else queued.request.prompt_name


def _accuracy(metrics: dict[str, float]) -> float | None:
    return next((v for name, v in metrics.items() if name.endswith("/accuracy")), None)
