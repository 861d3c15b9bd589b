"""Published completions -> grades.jsonl, summary.json and the result that is logged."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sft_dist.errors import EvaluationError
from sft_dist.evaluation.files import read_json, write_atomically, write_json
from sft_dist.evaluation.generator import Completion
from sft_dist.evaluation.queue import COMPLETIONS_FILE, SUMMARY_FILE, QueuedRequest
from sft_dist.evaluation.request import EvaluationRequest, Problem, read_problems
from sft_dist.evaluation.summary import GradeRow, breakdown, sample_rows, scored, summarize
from sft_dist.grading import GRADER_VERSION, Grade

GRADES_FILE = "grades.jsonl"

GradeMany = Callable[[Sequence[tuple[str, str]], str], list[Grade]]
"""(response, gold) pairs and the form of answer -> grades in their order."""


@dataclass(frozen=True)
class EvaluationResult:
    """What came of a request: `metrics` and `samples` to log at `step`, or an `error`.

    `summary` is the content of summary.json, with the tables by subject and level.
    """

    step: int
    request: EvaluationRequest | None
    metrics: dict[str, float] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


def score(
    queued: QueuedRequest, run_dir: Path, grade_many: GradeMany, *, training_prompt: str | None
) -> EvaluationResult:
    """Grade a published request and write its files, summary.json last.

    Raises EvaluationError when its files do not fit together or grading is impossible.
    """
    request = queued.request
    problems = read_problems(run_dir / request.problems_file)
    try:
        completions = read_completions(queued.directory / COMPLETIONS_FILE)
        grades = grade_rows(problems, completions, grade_many, form=request.form)
        rows = scored(problems, completions, grades)
    except (ValueError, TypeError, KeyError) as error:
        raise EvaluationError(f"{queued.directory} cannot be graded: {error}") from error
    metrics = summarize(request, problems, completions, grades, training_prompt=training_prompt)
    summary = {
        "step": request.step,
        "model_dir": request.model_dir,
        "weights_fingerprint": request.weights_fingerprint,
        "prompt_name": request.prompt_name,
        "grader_version": GRADER_VERSION,
        "metrics": metrics,
        **breakdown(rows),
        "generation": queued.published_facts(),
    }
    lines = "".join(json.dumps(asdict(grade), allow_nan=False) + "\n" for grade in grades)
    write_atomically(queued.directory / GRADES_FILE, lines)
    write_json(queued.directory / SUMMARY_FILE, summary)
    return EvaluationResult(request.step, request, metrics, sample_rows(rows), summary)


def stored_result(queued: QueuedRequest, run_dir: Path) -> EvaluationResult | None:
    """The result of a request that was graded before; None where its files are not whole."""
    summary = read_json(queued.directory / SUMMARY_FILE)
    try:
        problems = read_problems(run_dir / queued.request.problems_file)
        completions = read_completions(queued.directory / COMPLETIONS_FILE)
        grades = read_grades(queued.directory / GRADES_FILE)
        rows = scored(problems, completions, grades)
    except (OSError, ValueError, TypeError):
        return None
    if summary is None or summary.get("grader_version") != GRADER_VERSION:
        return None
    metrics = summary["metrics"]
    return EvaluationResult(
        queued.request.step, queued.request, metrics, sample_rows(rows), summary
    )


def grade_rows(
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    grade_many: GradeMany,
    *,
    form: str,
) -> list[GradeRow]:
    """One row per problem, in their order; a problem without gold answer has nothing to match."""
    responses = {completion.id: completion.response for completion in completions}
    pairs = [(responses[problem.id], problem.answer or "") for problem in problems]
    grades = grade_many(pairs, form)
    return [_row(problem, grade) for problem, grade in zip(problems, grades, strict=True)]


def read_completions(path: Path) -> list[Completion]:
    """Read completions.jsonl."""
    with path.open(encoding="utf-8") as lines:
        return [Completion(**json.loads(line)) for line in lines]


def read_grades(path: Path) -> list[GradeRow]:
    """Read grades.jsonl."""
    with path.open(encoding="utf-8") as lines:
        return [GradeRow(**json.loads(line)) for line in lines]


def _row(problem: Problem, grade: Grade) -> GradeRow:
    """Rewards as the reward functions of `grading` give them: the answer's needs the format."""
    correct = float(grade.verdict == "correct" and grade.format_ok)
    return GradeRow(
        id=problem.id,
        verdict=grade.verdict,
        stage=grade.stage,
        extracted=grade.extracted,
        gold=problem.answer,
        format_reward=float(grade.format_ok),
        answer_reward=correct,
        reward=correct,
    )
