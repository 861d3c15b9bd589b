import json

import pytest

from sft_dist.reporting.evaluations import read_evaluations
from sft_dist.reporting.graded import (
    length_histogram,
    rates,
    read_graded,
    read_problems,
    subject_by_level,
)
from tests.reporting.made_runs import evaluate, made_problems, write_lines


@pytest.fixture
def made(tmp_path):
    evaluate(tmp_path, 10, made_problems(50), skill=0.5)
    (evaluation,) = read_evaluations(tmp_path)
    return evaluation, read_problems(tmp_path / "evaluations/problems-1.jsonl")


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_problem_completion_and_grade_come_together_by_id(made):
    evaluation, problems = made
    write_lines(evaluation.directory / "completions.jsonl",
                reversed(rows(evaluation.directory / "completions.jsonl")))  # fmt: skip
    graded = read_graded(evaluation, problems)
    expected = {
        row["id"]: row["answer_reward"] for row in rows(evaluation.directory / "grades.jsonl")
    }
    found = {problems.rows[a.problem]["id"]: float(a.right) for a in graded.answers}
    assert found == expected
    assert [a.problem for a in graded.answers] == list(range(50))


def test_what_is_damaged_or_has_no_partner_is_counted(made):
    evaluation, problems = made
    completions = evaluation.directory / "completions.jsonl"
    lines = completions.read_text().splitlines()
    lines[3] = lines[3][:20]
    completions.write_text("\n".join(lines))
    grades = evaluation.directory / "grades.jsonl"
    grades.write_text("\n".join(grades.read_text().splitlines()[:-2]))
    graded = read_graded(evaluation, problems)
    assert (len(graded.answers), graded.unmatched) == (47, 3)


def test_rates_are_means_over_problems_with_wilsons_interval(made):
    answers = read_graded(*made).answers
    found = rates(answers)
    right = sum(a.right for a in answers)
    assert found["accuracy"] == pytest.approx(right / 50)
    assert found["interval"][0] < found["accuracy"] < found["interval"][1]
    assert found["truncated"] == pytest.approx(
        sum(a.finish_reason == "length" for a in answers) / 50
    )
    assert found["length_right"] < found["length_wrong"]


def test_several_answers_to_a_problem_count_as_one_problem(made):
    evaluation, problems = made
    for name in ("completions.jsonl", "grades.jsonl"):
        path = evaluation.directory / name
        write_lines(path, [{**row, "sample": i} for row in rows(path) for i in (0, 1)])
    grades = rows(evaluation.directory / "grades.jsonl")
    for row in grades:
        row["answer_reward"] = float(row["sample"])
    write_lines(evaluation.directory / "grades.jsonl", grades)
    graded = read_graded(evaluation, problems)
    found = rates(graded.answers)
    assert (found["num_problems"], found["num_answers"], found["accuracy"]) == (50, 100, 0.5)
    assert set(graded.shares.values()) == {0.5}


def test_nothing_graded_has_no_rates_and_no_division_by_zero():
    assert rates([])["accuracy"] is None
    assert length_histogram([]) == {"width": 1, "right": [], "wrong": []}


def test_the_margins_of_the_table_are_the_sums_of_its_cells(made):
    evaluation, problems = made
    answers = read_graded(evaluation, problems).answers
    table = subject_by_level(problems, answers)
    cells = table["cells"]
    for row in cells:
        assert row[-1] == [sum(c[0] for c in row[:-1]), sum(c[1] for c in row[:-1])]
    assert cells[-1][-1] == [sum(a.right for a in answers), 50]


def test_the_histogram_holds_every_answer_once(made):
    answers = read_graded(*made).answers
    histogram = length_histogram(answers)
    assert sum(histogram["right"]) == sum(a.right for a in answers)
    assert sum(histogram["right"]) + sum(histogram["wrong"]) == 50
    assert len(histogram["right"]) * histogram["width"] > max(a.num_tokens for a in answers)


def test_grades_with_columns_of_a_later_version_are_read(made):
    evaluation, problems = made
    path = evaluation.directory / "grades.jsonl"
    write_lines(path, [{**row, "confidence": 1, "stage": None} for row in rows(path)])
    assert len(read_graded(evaluation, problems).answers) == 50
