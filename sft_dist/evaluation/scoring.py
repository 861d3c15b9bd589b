"""Published completions -> grades.jsonl, summary.json, samples and the result that is logged."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sft_dist.durable import read_json, write_atomically, write_json
from sft_dist.errors import EvaluationError
from sft_dist.evaluation.comparison import (
    comparison_metrics,
    comparison_tables,
    refresh_later,
    with_earlier,
)
from sft_dist.evaluation.generator import Completion
from sft_dist.evaluation.queue import SUMMARY_FILE, QueuedRequest
from sft_dist.evaluation.request import EvaluationRequest, Problem, read_problems
from sft_dist.evaluation.results import (
    GRADES_FILE,
    GradeRow,
    Scored,
    read_completions,
    read_grades,
    scored,
)
from sft_dist.evaluation.samples import sample_table, write_samples
from sft_dist.evaluation.summary import breakdown, identity, summarize
from sft_dist.grading import GRADER_VERSION, Grade

GradeMany = Callable[[Sequence[tuple[str, str]], str], list[Grade]]
"""(response, gold) pairs and the form of answer -> grades in their order."""


@dataclass(frozen=True)
class EvaluationResult:
    """What came of a request: `metrics` and `samples` to log at `step`, or an `error`.

    `identity` says by metric names what was scored; `summary` is the content of summary.json.
    """

    step: int
    request: EvaluationRequest | None
    metrics: dict[str, float] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    identity: dict[str, str] = field(default_factory=dict)

    @property
    def row(self) -> dict[str, Any]:
        """The row to log."""
        return {"eval/step": self.step, **self.identity, **self.metrics}


def score(
    queued: QueuedRequest, run_dir: Path, grade_many: GradeMany, *, training_prompt: str | None
) -> EvaluationResult:
    """Grade a published request and write its files, summary.json last.

    Raises EvaluationError when its files do not fit together or grading is impossible.
    """
    request = queued.request
    problems = read_problems(run_dir / request.problems_file)
    try:
        completions = read_completions(queued)
        grades = grade_rows(problems, completions, grade_many, form=request.form)
        rows = _scored(queued, problems, completions, grades)
    except (ValueError, TypeError, KeyError) as error:
        raise EvaluationError(f"{queued.directory} cannot be graded: {error}") from error
    compared = with_earlier(run_dir, request, grades, version=GRADER_VERSION)
    metrics = summarize(request, rows, training_prompt=training_prompt)
    metrics |= comparison_metrics(compared, request, training_prompt)
    summary = {
        "step": request.step,
        "model_dir": request.model_dir,
        "weights_fingerprint": request.weights_fingerprint,
        "prompt_name": request.prompt_name,
        "decoding": request.sampling.describe(),
        "grader_version": GRADER_VERSION,
        "metrics": metrics,
        **breakdown(rows),
        "comparisons": comparison_tables(compared),
        "generation": queued.published_facts(),
        "failed_attempts": queued.failed_attempts(),
    }
    lines = "".join(json.dumps(asdict(grade), allow_nan=False) + "\n" for grade in grades)
    write_atomically(queued.directory / GRADES_FILE, lines)
    write_samples(queued.directory, _title(request), rows)
    write_json(queued.directory / SUMMARY_FILE, summary)
    refresh_later(run_dir, request, training_prompt, version=GRADER_VERSION)
    return _result(queued, rows, summary, training_prompt)


def stored_result(
    queued: QueuedRequest, run_dir: Path, *, training_prompt: str | None
) -> EvaluationResult | None:
    """The result of a request that was graded before; None where its files are not whole."""
    summary = read_json(queued.directory / SUMMARY_FILE)
    try:
        problems = read_problems(run_dir / queued.request.problems_file)
        rows = _scored(queued, problems, read_completions(queued), read_grades(queued))
    except (OSError, ValueError, TypeError):
        return None
    if summary is None or summary.get("grader_version") != GRADER_VERSION:
        return None
    return _result(queued, rows, summary, training_prompt)


def _scored(
    queued: QueuedRequest,
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    grades: Sequence[GradeRow],
) -> list[Scored]:
    wanted = queued.request.sampling.num_samples
    return scored(problems, completions, grades, num_samples=wanted)


def _result(
    queued: QueuedRequest,
    rows: Sequence[Scored],
    summary: dict[str, Any],
    training_prompt: str | None,
) -> EvaluationResult:
    request = queued.request
    named = {"prompt_name": request.prompt_name}
    return EvaluationResult(
        request.step,
        request,
        metrics=summary["metrics"],
        samples=[{**named, **row} for row in sample_table(rows)],
        summary=summary,
        identity=identity(
            request, training_prompt=training_prompt, grader_version=summary["grader_version"]
        ),
    )


def _title(request: EvaluationRequest) -> str:
    return (
        f"Step {request.step}, prompt {request.prompt_name}, {request.sampling.describe()}, "
        f"weights {request.weights_fingerprint[:12]}"
    )


def grade_rows(
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    grade_many: GradeMany,
    *,
    form: str,
) -> list[GradeRow]:
    """One row per completion, in their order; without a gold answer there is nothing to match."""
    problem_of = {problem.id: problem for problem in problems}
    asked = [problem_of[completion.id] for completion in completions]
    pairs = [(c.response, p.answer or "") for c, p in zip(completions, asked, strict=True)]
    grades = grade_many(pairs, form)
    return [_row(*parts) for parts in zip(asked, completions, grades, strict=True)]


def _row(problem: Problem, completion: Completion, grade: Grade) -> GradeRow:
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
        sample=completion.sample,
    )
