"""Did training help? An evaluation against earlier ones of the same problems, problem by problem.

Two accuracies of the same problems are not independent, so their intervals say little about the
difference; the problems that changed do (`statistics.mcnemar_p`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sft_dist.durable import read_json, write_json
from sft_dist.evaluation.queue import SUMMARY_FILE, EvaluationQueue, QueuedRequest
from sft_dist.evaluation.request import EvaluationRequest
from sft_dist.evaluation.results import GradeRow, read_grades
from sft_dist.evaluation.statistics import mcnemar_p
from sft_dist.evaluation.summary import metric_prefix, shares

BASE, PREVIOUS = "base", "previous"


@dataclass(frozen=True)
class Comparison:
    """With the evaluation of step `step`: ids of the problems gained and lost since."""

    step: int
    delta: float
    gained: list[str]
    lost: list[str]
    p_value: float


def compare(step: int, now: Mapping[str, float], before: Mapping[str, float]) -> Comparison:
    """Compare right answers by problem id; both sides hold the same ids, as numbers from 0 to 1."""
    gained = [name for name, share in now.items() if share > before[name]]
    lost = [name for name, share in now.items() if share < before[name]]
    delta = sum(share - before[name] for name, share in now.items()) / len(now)
    return Comparison(step, delta, gained, lost, mcnemar_p(len(gained), len(lost)))


def with_earlier(
    run_dir: Path, request: EvaluationRequest, grades: Iterable[GradeRow], *, version: str
) -> dict[str, Comparison]:
    """Comparisons of `grades` with step 0 (`base`) and with the step before (`previous`).

    One that has no partner is left out: a partner was asked the same problems by the same prompt
    and decoding, and graded by grader `version`.
    """
    now = shares(grades)
    found = {
        queued.request.step: queued
        for queued in _graded_alike(run_dir, request)
        if queued.request.step < request.step and _version(queued) == version
    }
    partners = {BASE: found.get(0), PREVIOUS: found.get(max(found, default=0))}
    compared = {}
    for name, partner in partners.items():
        before = shares(read_grades(partner)) if partner is not None else {}
        if partner is not None and now and set(before) == set(now):
            compared[name] = compare(partner.request.step, now, before)
    return compared


def comparison_metrics(
    comparisons: Mapping[str, Comparison], request: EvaluationRequest, training_prompt: str | None
) -> dict[str, float]:
    """The figures of the comparisons by metric name."""
    prefix = metric_prefix(request, training_prompt)
    metrics: dict[str, float] = {}
    for name, comparison in comparisons.items():
        metrics[f"{prefix}vs_{name}_delta"] = comparison.delta
        metrics[f"{prefix}vs_{name}_gained"] = len(comparison.gained)
        metrics[f"{prefix}vs_{name}_lost"] = len(comparison.lost)
        metrics[f"{prefix}vs_{name}_p_value"] = comparison.p_value
    return metrics


def comparison_tables(comparisons: Mapping[str, Comparison]) -> dict[str, dict[str, Any]]:
    """For summary.json, with the ids."""
    return {name: asdict(comparison) for name, comparison in comparisons.items()}


def refresh_later(
    run_dir: Path, request: EvaluationRequest, training_prompt: str | None, *, version: str
) -> None:
    """Put `request`, graded only now, into the summaries of later steps that were graded before.

    Rows that are logged already stay as they are.
    """
    for queued in _graded_alike(run_dir, request):
        summary = read_json(queued.directory / SUMMARY_FILE) or {}
        if queued.request.step <= request.step or summary.get("grader_version") != version:
            continue
        found = with_earlier(run_dir, queued.request, read_grades(queued), version=version)
        summary["comparisons"] = comparison_tables(found)
        summary["metrics"] |= comparison_metrics(found, queued.request, training_prompt)
        write_json(queued.directory / SUMMARY_FILE, summary)


def _graded_alike(run_dir: Path, request: EvaluationRequest) -> Iterator[QueuedRequest]:
    for queued in EvaluationQueue(run_dir).requests():
        if queued.is_graded and _conditions(queued.request) == _conditions(request):
            yield queued


def _conditions(request: EvaluationRequest) -> tuple[Any, ...]:
    return (request.prompt_name, request.form, request.sampling, request.problems_file)


def _version(queued: QueuedRequest) -> str | None:
    summary = read_json(queued.directory / SUMMARY_FILE) or {}
    return summary.get("grader_version")
