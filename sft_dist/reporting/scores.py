"""The graded evaluations of a run, each counted and compared with the first of its kind."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sft_dist.durable import read_json
from sft_dist.evaluation.statistics import wilson_interval
from sft_dist.reporting.comparison import Paired, compare
from sft_dist.reporting.evaluations import Evaluation
from sft_dist.reporting.graded import (
    Answer,
    Graded,
    Problems,
    length_histogram,
    rates,
    read_graded,
    read_problems,
    subject_by_level,
)
from sft_dist.reporting.run_files import SUMMARY, number, text, whole
from sft_dist.reporting.training import Row, Training


@dataclass
class Scores:
    """`evaluations` for the page; `problems` and `answers` by the names used there.

    An evaluation's `series` counts the kinds (prompt, decoding, problems) of the run; 0 is that of
    the training prompt. `base` names the first of its kind, `change` is the `Paired` with that.
    """

    evaluations: list[dict[str, Any]] = field(default_factory=list)
    problems: dict[str, Problems] = field(default_factory=dict)
    answers: dict[str, list[Answer]] = field(default_factory=dict)


def read_scores(
    run_dir: Path, evaluations: Sequence[Evaluation], settings: Row, *, prefix: str
) -> Scores:
    """Read what was graded; `prefix` keeps the names of several runs apart."""
    return _Reader(run_dir, prefix, settings).read(evaluations)


class _Reader:
    """Reads the graded evaluations of one run, each problems file once."""

    def __init__(self, run_dir: Path, prefix: str, settings: Row) -> None:
        self._run_dir, self._prefix = run_dir, prefix
        self._prompt = settings.get("prompt")
        self._files: dict[str, str] = {}
        self._firsts: dict[str, tuple[dict[str, Any], Graded]] = {}
        self.scores = Scores()

    def read(self, evaluations: Sequence[Evaluation]) -> Scores:
        """Of one step asked twice, the one graded last counts."""
        latest = {
            (e.series, e.step): e
            for e in sorted(evaluations, key=lambda e: e.graded or 0.0)
            if e.state == "graded"
        }
        main = self._main(latest)
        series = sorted({e.series for e in latest.values()}, key=lambda s: (s != main, s))
        for evaluation in sorted(latest.values(), key=lambda e: e.step):
            found = self._one(evaluation, series)
            if found is not None:
                self.scores.evaluations.append(found)
        return self.scores

    def _main(self, latest: dict[tuple[str, int], Evaluation]) -> str | None:
        """The series with the training prompt, the longest of them; else the longest of all."""
        counts: dict[str, int] = {}
        for (series, _), evaluation in latest.items():
            bonus = 1_000_000 if evaluation.prompt == self._prompt else 0
            counts[series] = counts.get(series, bonus) + 1
        return max(counts, key=lambda series: counts[series], default=None)

    def _one(self, evaluation: Evaluation, series: list[str]) -> dict[str, Any] | None:
        file = self._problems_file(evaluation)
        problems = self.scores.problems[file]
        graded = read_graded(evaluation, problems)
        if not graded.answers:
            return None
        name = f"{self._prefix}e{len(self.scores.answers)}"
        self.scores.answers[name] = graded.answers
        found = {
            "name": name,
            "step": evaluation.step,
            "prompt": evaluation.prompt,
            "series": series.index(evaluation.series),
            "problems": file,
            "unmatched": graded.unmatched,
            "rates": rates(graded.answers),
            "table": subject_by_level(problems, graded.answers),
            "lengths": length_histogram(graded.answers),
            "fingerprint": evaluation.fingerprint,
            **_facts(evaluation),
        }
        base = self._firsts.setdefault(evaluation.series, (found, graded))
        found["base"] = base[0]["name"] if base[0] is not found else None
        change = compare(base[1].shares, graded.shares) if found["base"] else None
        found["change"] = None if change is None else _counted(change)
        return found

    def _problems_file(self, evaluation: Evaluation) -> str:
        path = str(evaluation.request.get("problems_file"))
        if path not in self._files:
            self._files[path] = f"{self._prefix}p{len(self._files)}"
            self.scores.problems[self._files[path]] = read_problems(self._run_dir / path)
        return self._files[path]


def _counted(change: Paired) -> dict[str, Any]:
    return {**asdict(change), "gained": len(change.gained), "lost": len(change.lost)}


def _facts(evaluation: Evaluation) -> dict[str, Any]:
    summary_file = read_json(evaluation.directory / SUMMARY) or {}
    facts = summary_file.get("generation")
    facts = facts if isinstance(facts, dict) else {}
    sampling = evaluation.request.get("sampling")
    return {
        "grader": text(summary_file.get("grader_version")),
        "generation": {k: v for k, v in facts.items() if isinstance(v, str | int | float)},
        "sampling": sampling if isinstance(sampling, dict) else {},
        "graded": evaluation.graded,
        "directory": f"{evaluation.directory.parent.name}/{evaluation.directory.name}",
    }


def recorded_only(
    training: Training, evaluations: Sequence[dict[str, Any]], settings: Row
) -> list[dict[str, Any]]:
    """Evaluations whose files are gone, by their rows in the record; only of the main series."""
    known = {e["step"] for e in evaluations if e["series"] == 0}
    found = []
    for step, row in training.evaluations.items():
        accuracy = number(row.get("eval/accuracy"))
        if step in known or accuracy is None:
            continue
        count = whole(row.get("eval/num_problems")) or 0
        measured = {
            "num_problems": count,
            "accuracy": accuracy,
            "interval": wilson_interval(accuracy, count) if count else None,
            "format": number(row.get("eval/avg_format_reward")),
            "truncated": number(row.get("eval/truncated_rate")),
            "no_answer": number(row.get("eval/no_answer_rate")),
            "unparseable": number(row.get("eval/unparseable_rate")),
            "timeout": number(row.get("eval/timeout_rate")),
            "length": number(row.get("eval/avg_response_length")),
            "length_right": number(row.get("eval/avg_response_length_correct")),
            "length_wrong": number(row.get("eval/avg_response_length_wrong")),
            "entropy": number(row.get("eval/avg_token_entropy")),
        }
        found.append(
            {"name": None, "step": step, "prompt": settings.get("prompt"), "series": 0,
             "rates": measured, "base": None, "change": None}
        )  # fmt: skip
    return found
