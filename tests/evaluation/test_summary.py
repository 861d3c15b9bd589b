import json
import math

import pytest

from sft_dist.evaluation.generator import Completion
from sft_dist.evaluation.request import EvaluationRequest, Sampling
from sft_dist.evaluation.scoring import grade_rows
from sft_dist.evaluation.summary import GradeRow, breakdown, sample_rows, scored, summarize
from sft_dist.grading import grade
from tests.evaluation.models import problem


def request(prompt="default"):
    return EvaluationRequest(
        0, "/m", "f", prompt, "boxed", Sampling(max_new_tokens=8), "evaluations/p.jsonl", 4
    )


def item(name, *, tokens, verdict="wrong", finish="stop", entropy=1.0, level=1):
    correct = float(verdict == "correct")
    row = GradeRow(name, verdict, "text", "x", "1", float(verdict != "no_answer"), correct, correct)
    completion = Completion(name, f"text of {name}", tokens, finish, entropy)
    return problem(name, "2+2=", level=level), completion, row


FOUR = [
    item("a", tokens=10, verdict="correct", entropy=0.5, level=1),
    item("b", tokens=30, verdict="wrong", entropy=1.5, level=2),
    item("c", tokens=40, verdict="no_answer", finish="length", entropy=2.0, level=2),
    item("d", tokens=0, verdict="timeout", finish="length", entropy=None, level=5),
]


def columns(items):
    return tuple(list(column) for column in zip(*items, strict=True))


def test_every_metric_of_a_small_evaluation():
    metrics = summarize(request(), *columns(FOUR))
    assert metrics == {
        "eval/accuracy": 0.25,
        "eval/accuracy_stderr": pytest.approx(math.sqrt(0.25 * 0.75 / 4)),
        "eval/avg_format_reward": 0.75,
        "eval/avg_answer_reward": 0.25,
        # over tokens, not over responses: (10 x 0.5 + 30 x 1.5 + 40 x 2) / 80
        "eval/avg_token_entropy": pytest.approx(130 / 80),
        "eval/avg_response_length": 20.0,
        "eval/avg_response_length_correct": 10.0,
        "eval/avg_response_length_wrong": pytest.approx(70 / 3),
        "eval/truncated_rate": 0.5,
        "eval/no_answer_rate": 0.25,
        "eval/unparseable_rate": 0.0,
        "eval/timeout_rate": 0.25,
        "eval/num_problems": 4,
    }


def test_what_is_undefined_is_left_out_and_json_stays_valid():
    all_wrong = summarize(request(), *columns(FOUR[1:3]))
    assert "eval/avg_response_length_correct" not in all_wrong
    no_tokens = summarize(request(), *columns(FOUR[3:]))
    assert "eval/avg_token_entropy" not in no_tokens
    empty = summarize(request(), [], [], [])
    assert empty == {"eval/num_problems": 0}
    json.dumps([all_wrong, no_tokens, empty], allow_nan=False)


def test_only_other_prompts_have_their_name_in_the_metric():
    own = summarize(request("r1_zero"), *columns(FOUR), training_prompt="r1_zero")
    other = summarize(request("r1_zero"), *columns(FOUR), training_prompt="default")
    assert own["eval/accuracy"] == other["eval/r1_zero/accuracy"] == 0.25
    assert all(name.startswith("eval/r1_zero/") for name in other)


def test_the_order_of_completions_and_grades_does_not_matter():
    problems, completions, grades = columns(FOUR)
    shuffled = summarize(request(), problems, completions[::-1], grades[2:] + grades[:2])
    assert shuffled == summarize(request(), problems, completions, grades)


@pytest.mark.parametrize("keep", [[0, 1, 2], [0, 1, 2, 2], [0, 1, 2, 3, 3]])
def test_a_missing_or_doubled_completion_is_no_accuracy(keep):
    problems, completions, grades = columns(FOUR)
    with pytest.raises(ValueError, match="expected one completion and one grade"):
        summarize(request(), problems, [completions[i] for i in keep], grades)


def test_the_tables_count_by_verdict_subject_and_level():
    tables = breakdown(scored(*columns(FOUR)))
    assert tables["verdicts"] == {"correct": 1, "wrong": 1, "no_answer": 1, "timeout": 1}
    assert tables["by_subject"]["algebra"]["num_problems"] == 4
    assert tables["by_level"]["1"] == {"num_problems": 1, "accuracy": 1.0, "stderr": 0.0}
    assert tables["by_level"]["2"]["accuracy"] == 0.0


def test_the_sample_rows_are_the_same_problems_whatever_was_answered():
    many = [item(f"p{i}", tokens=i + 1) for i in range(100)]
    others = [item(f"p{i}", tokens=1, verdict="correct") for i in range(100)]
    rows = sample_rows(scored(*columns(many)), count=8)
    assert [row["id"] for row in rows] == [f"p{i * 100 // 8}" for i in range(8)]
    assert [r["id"] for r in sample_rows(scored(*columns(others)), count=8)] == [
        row["id"] for row in rows
    ]
    assert rows[1]["response"] == "text of p12"
    assert rows[1]["response_length"] == 13
    assert len(sample_rows(scored(*columns(FOUR)), count=8)) == 4
    assert sample_rows([]) == []


def test_rewards_follow_the_grader_and_a_missing_gold_is_never_correct():
    problems = [problem("a", "x", answer="4"), problem("b", "x", answer="5"), problem("c", "x")]
    problems.append(problem("d", "x", answer=None))
    texts = {"a": r"\boxed{4}", "b": r"\boxed{4}", "c": "no box", "d": r"\boxed{}"}
    completions = [Completion(name, text, 3, "stop", 0.1) for name, text in texts.items()]

    def grade_many(pairs, form):
        return [grade(response, gold, form=form) for response, gold in pairs]

    rows = grade_rows(problems, completions, grade_many, form="boxed")
    assert [(r.format_reward, r.answer_reward, r.reward) for r in rows[:3]] == [
        (1.0, 1.0, 1.0),
        (1.0, 0.0, 0.0),
        (0.0, 0.0, 0.0),
    ]
    assert not rows[3].is_correct
    assert rows[3].gold is None
