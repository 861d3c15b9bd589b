"""Problems, completions and grades of one evaluation brought together, and counted."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sft_dist.evaluation.statistics import mean, shares_by_problem, weighted_mean, wilson_interval
from sft_dist.reporting.evaluations import Evaluation
from sft_dist.reporting.run_files import COMPLETIONS, GRADES, number, read_json_lines, text, whole

LENGTH_BINS = 32


class Answer(NamedTuple):
    """One response and its grade; `problem` is the row of the problems file.

    `sample` counts the answers to one problem from 0, where several were drawn.
    """

    problem: int
    sample: int
    response: str
    num_tokens: int | None
    finish_reason: str | None
    entropy: float | None
    verdict: str
    stage: str | None
    extracted: str | None
    format_ok: bool
    right: bool


@dataclass(frozen=True)
class Problems:
    """The rows of a problems file, and where each id stands."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    place: dict[str, int] = field(default_factory=dict)

    def subject(self, index: int) -> str:
        """Subject of a problem; `unknown` where the file does not say."""
        return text(self.rows[index].get("subject")) or "unknown"

    def level(self, index: int) -> str:
        """Level of a problem, as text; `unknown` where the file does not say."""
        level = self.rows[index].get("level")
        return str(level) if level is not None else "unknown"


@dataclass(frozen=True)
class Graded:
    """The answers of an evaluation in the order of the problems, and what was left out."""

    answers: list[Answer] = field(default_factory=list)
    unmatched: int = 0
    """Completions or grades that are damaged, or whose problem or other half is missing."""

    @property
    def shares(self) -> dict[int, float]:
        """Share of right answers of each problem: 0 or 1 when it was answered once."""
        return shares(self.answers)


def shares(answers: Iterable[Answer]) -> dict[int, float]:
    """Share of right answers by problem."""
    return shares_by_problem((answer.problem, answer.right) for answer in answers)


def read_problems(path: Path) -> Problems:
    """Read a problems file; one that is missing has no rows."""
    rows = [row for row in read_json_lines(path).rows if isinstance(row.get("id"), str)]
    return Problems(rows, {row["id"]: index for index, row in enumerate(rows)})


def read_graded(evaluation: Evaluation, problems: Problems) -> Graded:
    """The answers for which problem, completion and grade are all there."""
    completions = read_json_lines(evaluation.directory / COMPLETIONS)
    grades = read_json_lines(evaluation.directory / GRADES)
    grade_of = {_key(row): row for row in grades.rows}
    answers = []
    for row in completions.rows:
        place, grade = problems.place.get(str(row.get("id"))), grade_of.get(_key(row))
        if place is not None and grade is not None:
            answers.append(_answer(place, row, grade))
    expected = max(len(problems.rows), len(completions.rows) + len(completions.damaged))
    answers.sort(key=lambda answer: (answer.problem, answer.sample))
    return Graded(answers, expected - len(answers))


def subject_by_level(problems: Problems, answers: Sequence[Answer]) -> dict[str, Any]:
    """`{"subjects", "levels", "cells"}`; cells[subject][level] = [right, problems].

    Both lists end with "all", so the table has its margins. A problem counts once, by its share.
    """
    of_problem = shares(answers)
    subjects = [*sorted({problems.subject(i) for i in of_problem}), "all"]
    levels = [*sorted({problems.level(i) for i in of_problem}, key=_as_level), "all"]
    asked: Counter[tuple[str, str]] = Counter()
    right: dict[tuple[str, str], float] = defaultdict(float)
    for index, share in of_problem.items():
        for subject in (problems.subject(index), "all"):
            for level in (problems.level(index), "all"):
                asked[subject, level] += 1
                right[subject, level] += share
    cells = [[[right[s, v], asked[s, v]] for v in levels] for s in subjects]
    return {"subjects": subjects, "levels": levels, "cells": cells}


def length_histogram(answers: Sequence[Answer]) -> dict[str, Any]:
    """`{"width", "right", "wrong"}`: responses by length in bins of `width` tokens from 0."""
    lengths = [(a.num_tokens, a.right) for a in answers if a.num_tokens is not None]
    longest = max((length for length, _ in lengths), default=0)
    width = max(1, -(-(longest + 1) // LENGTH_BINS))
    bins = longest // width + 1 if lengths else 0
    counts = {True: [0] * bins, False: [0] * bins}
    for length, is_right in lengths:
        counts[is_right][length // width] += 1
    return {"width": width, "right": counts[True], "wrong": counts[False]}


def rates(answers: Sequence[Answer]) -> dict[str, Any]:
    """The shares and mean lengths that a person compares; undefined ones are None.

    `accuracy` is the mean over problems, `interval` Wilson's for that many; the rest are means
    over answers.
    """
    of_problem = list(shares(answers).values())
    accuracy = mean(of_problem)
    return {
        "num_problems": len(of_problem),
        "num_answers": len(answers),
        "accuracy": accuracy,
        "interval": None if accuracy is None else wilson_interval(accuracy, len(of_problem)),
        "format": mean([a.format_ok for a in answers]),
        "truncated": mean([a.finish_reason == "length" for a in answers]),
        "wrong": mean([a.verdict == "wrong" for a in answers]),
        "no_answer": mean([a.verdict == "no_answer" for a in answers]),
        "unparseable": mean([a.verdict == "unparseable" for a in answers]),
        "timeout": mean([a.verdict == "timeout" for a in answers]),
        "length": _mean_length(answers),
        "length_right": _mean_length([a for a in answers if a.right]),
        "length_wrong": _mean_length([a for a in answers if not a.right]),
        "entropy": _token_entropy(answers),
    }


def _key(row: dict[str, Any]) -> tuple[str, int]:
    return str(row.get("id")), whole(row.get("sample")) or 0


def _answer(place: int, completion: dict[str, Any], grade: dict[str, Any]) -> Answer:
    return Answer(
        problem=place,
        sample=whole(completion.get("sample")) or 0,
        response=text(completion.get("response")) or "",
        num_tokens=whole(completion.get("num_tokens")),
        finish_reason=text(completion.get("finish_reason")),
        entropy=number(completion.get("mean_token_entropy")),
        verdict=text(grade.get("verdict")) or "unknown",
        stage=text(grade.get("stage")),
        extracted=text(grade.get("extracted")),
        format_ok=grade.get("format_reward") == 1,
        right=grade.get("answer_reward") == 1,
    )


def _mean_length(answers: Sequence[Answer]) -> float | None:
    return mean([a.num_tokens for a in answers if a.num_tokens is not None])


def _token_entropy(answers: Sequence[Answer]) -> float | None:
    """Mean over all generated tokens: a long response weighs more."""
    return weighted_mean(
        (a.entropy, a.num_tokens) for a in answers if a.entropy is not None and a.num_tokens
    )


def _as_level(level: str) -> tuple[bool, int, str]:
    return (not level.isdigit(), int(level) if level.isdigit() else 0, level)
