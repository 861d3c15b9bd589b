"""What an evaluation left behind: its completions and grades, read back and brought together."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sft_dist.evaluation.generator import Completion
from sft_dist.evaluation.queue import COMPLETIONS_FILE, QueuedRequest
from sft_dist.evaluation.request import Problem

GRADES_FILE = "grades.jsonl"


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
    sample: int = 0

    @property
    def is_correct(self) -> bool:
        """Counts towards accuracy."""
        return self.answer_reward == 1.0


@dataclass(frozen=True)
class Scored:
    """One answer to a problem, and what became of it."""

    problem: Problem
    completion: Completion
    grade: GradeRow


def scored(
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    grades: Sequence[GradeRow],
    *,
    num_samples: int = 1,
) -> list[Scored]:
    """Bring the three together by id and sample, in the order of the problems.

    Raises ValueError unless completions and grades hold each answer wanted, each once.
    """
    completion_of = {(row.id, row.sample): row for row in completions}
    grade_of = {(row.id, row.sample): row for row in grades}
    wanted = [(problem, (problem.id, i)) for problem in problems for i in range(num_samples)]
    keys = {key for _, key in wanted}
    alike = keys == set(completion_of) == set(grade_of)
    if not alike or not len(keys) == len(wanted) == len(completions) == len(grades):
        raise ValueError(
            f"expected one completion and one grade for each of {len(wanted)} answers to "
            f"{len(problems)} problems, found {len(completions)} and {len(grades)}"
        )
    return [Scored(problem, completion_of[key], grade_of[key]) for problem, key in wanted]


def read_completions(queued: QueuedRequest) -> list[Completion]:
    """The published completions. Raises OSError, ValueError, TypeError where they are not whole."""
    with (queued.directory / COMPLETIONS_FILE).open(encoding="utf-8") as lines:
        return [Completion(**json.loads(line)) for line in lines]


def read_grades(queued: QueuedRequest) -> list[GradeRow]:
    """The grades; the errors are those of `read_completions`."""
    with (queued.directory / GRADES_FILE).open(encoding="utf-8") as lines:
        return [GradeRow(**json.loads(line)) for line in lines]
