"""The demo's problems are right, solved step by step, and leak nothing from test to train."""

import json
import operator
import re
from collections import Counter
from fractions import Fraction

import pytest

from launch.demo.problems import KINDS, make_problems, write_math_directory

SEEDS = (0, 1, 2)
OPERATORS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


def solve(problem):
    """Work out a problem from its text alone: operator, unordered operands, asked-for answer."""
    numbers = [int(text) for text in re.findall(r"\d+", problem)]
    if re.search(r"\\cdot|rectangle", problem):
        return "*", numbers, numbers[0] * numbers[1]
    if re.search(r"\dx=", problem):
        factor, product = numbers
        assert product % factor == 0
        return "*", [factor, product // factor], product // factor
    if re.search(r"x-\d|\d\+\d|A box holds", problem):
        return "+", numbers, sum(numbers)
    if re.search(r"\d-\d", problem) or problem.startswith("Of"):
        whole, part = numbers
    else:
        assert "+" in problem
        part, whole = numbers
    return "+", [part, whole - part], whole - part


def fact(problem):
    sign, operands, _ = solve(problem)
    return sign, *sorted(operands)


def boxed(solution):
    return re.search(r" The answer is \$\\boxed\{(\d+)\}\$$", solution)[1]


@pytest.fixture(scope="module", params=SEEDS)
def problems(request):
    return make_problems(request.param, num_train=3000, num_test=256)


def test_every_answer_is_what_independent_arithmetic_gives(problems):
    train, test = problems
    for record in train + test:
        _, _, answer = solve(record["problem"])
        assert boxed(record["solution"]) == str(answer), record


def test_every_equation_in_a_solution_holds(problems):
    train, test = problems
    for record in train + test:
        equations = re.findall(r"[\d+*/-]+=\d+", record["solution"].replace(r"\cdot", "*"))
        assert len(equations) >= 2, record
        for equation in equations:
            assert holds(equation), (equation, record)


def holds(equation):
    left, right = equation.split("=")
    first, *rest = re.split(r"([-+*/])", left)
    value = Fraction(first)
    for sign, number in zip(rest[::2], rest[1::2], strict=True):
        value = OPERATORS[sign](value, int(number))
    return value == int(right)


def test_no_operands_of_a_test_problem_occur_in_training_in_any_dress(problems):
    train, test = problems
    assert not {fact(r["problem"]) for r in train} & {fact(r["problem"]) for r in test}


def test_each_test_problem_has_operands_of_its_own(problems):
    _, test = problems
    assert len({fact(record["problem"]) for record in test}) == len(test) == 256


def test_the_most_frequent_test_answer_stays_within_five_percent(problems):
    _, test = problems
    counts = Counter(boxed(record["solution"]) for record in test)
    assert counts.most_common(1)[0][1] <= 0.05 * len(test)


def test_training_problems_are_all_different(problems):
    train, _ = problems
    assert len({record["problem"] for record in train}) == len(train) == 3000


def test_records_have_the_fields_of_math_and_all_levels_and_several_subjects(problems):
    for records in problems:
        assert all(set(r) == {"problem", "level", "type", "solution"} for r in records)
        assert {r["level"] for r in records} == {f"Level {n}" for n in range(1, 6)}
        assert {"Algebra", "Prealgebra", "Geometry"} < {r["type"] for r in records}


def test_the_seed_decides_everything():
    first = make_problems(5, num_train=100, num_test=20)
    assert make_problems(5, num_train=100, num_test=20) == first
    assert make_problems(6, num_train=100, num_test=20) != first


def test_a_few_test_problems_still_have_no_dominant_answer():
    _, test = make_problems(0, num_train=0, num_test=10)
    assert len({boxed(record["solution"]) for record in test}) == 10


def test_shuffled_answers_change_only_which_training_solution_stands_where():
    train, test = make_problems(3, num_train=1000, num_test=50)
    control, control_test = make_problems(3, num_train=1000, num_test=50, shuffle_answers=True)
    assert control_test == test
    assert [r["problem"] for r in control] == [r["problem"] for r in train]
    assert Counter(r["solution"] for r in control) == Counter(r["solution"] for r in train)
    right = sum(boxed(r["solution"]) == str(solve(r["problem"])[2]) for r in control)
    assert right <= 30


def test_more_problems_than_there_are_is_refused(monkeypatch):
    areas = [kind for kind in KINDS if kind.subject == "Geometry"]  # 7 x 90 facts in two phrases
    monkeypatch.setattr("launch.demo.problems.KINDS", areas)
    with pytest.raises(ValueError, match="num_train=1300"):
        make_problems(0, num_train=1300, num_test=0)
    with pytest.raises(ValueError, match="num_test=650"):
        make_problems(0, num_train=0, num_test=650)


def test_files_lie_as_in_the_original_math_and_hold_the_records(tmp_path):
    train, test = make_problems(0, num_train=200, num_test=40)
    write_math_directory(tmp_path, train, test=test)
    assert (tmp_path / "train" / "counting_and_probability" / "1.json").is_file()
    for split, records in (("train", train), ("test", test)):
        files = list((tmp_path / split).glob("*/*.json"))
        found = [json.loads(file.read_text()) for file in files]
        assert sorted(map(str, found)) == sorted(map(str, records))


def test_a_directory_with_problems_is_not_written_over(tmp_path):
    train, test = make_problems(0, num_train=5, num_test=5)
    write_math_directory(tmp_path, train, test=test)
    with pytest.raises(FileExistsError):
        write_math_directory(tmp_path, train, test=test)
