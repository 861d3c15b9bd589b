import json
import math
from dataclasses import replace

import pytest

from sft_dist.evaluation.generator import Completion
from sft_dist.evaluation.request import EvaluationRequest, Sampling
from sft_dist.evaluation.results import GradeRow, scored
from sft_dist.evaluation.scoring import grade_rows
from sft_dist.evaluation.statistics import wilson_interval
from sft_dist.evaluation.summary import breakdown, identity, summarize
from sft_dist.grading import grade
from sft_dist.tracking.metrics import is_declared
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


def rows_of(items):
    return scored(*columns(items)) if items else []


def drawn(name, correct):
    """Several answers to one problem, right or wrong as `correct` says."""
    made = []
    for sample, right in enumerate(correct):
        asked, completion, row = item(name, tokens=2, verdict="correct" if right else "wrong")
        made.append((asked, replace(completion, sample=sample), replace(row, sample=sample)))
    return made


def test_every_metric_of_a_small_evaluation():
    metrics = summarize(request(), rows_of(FOUR))
    low, high = wilson_interval(0.25, 4)
    assert metrics == {
        "eval/accuracy": 0.25,
        "eval/accuracy_stderr": pytest.approx(math.sqrt(0.25 * 0.75 / 4)),
        "eval/accuracy_low": low,
        "eval/accuracy_high": high,
        "eval/avg_format_reward": 0.75,
        "eval/avg_answer_reward": 0.25,
        # over tokens, not over responses: (10 x 0.5 + 30 x 1.5 + 40 x 2) / 80
        "eval/avg_token_entropy": pytest.approx(130 / 80),
        "eval/avg_response_length": 20.0,
        "eval/avg_response_length_correct": 10.0,
        "eval/avg_response_length_wrong": pytest.approx(70 / 3),
        "eval/truncated_rate": 0.5,
        "eval/wrong_rate": 0.25,
        "eval/no_answer_rate": 0.25,
        "eval/unparseable_rate": 0.0,
        "eval/timeout_rate": 0.25,
        "eval/num_problems": 4,
        "eval/accuracy_level_1": 1.0,
        "eval/accuracy_level_2": 0.0,
        "eval/accuracy_level_5": 0.0,
        "eval/accuracy_subject_algebra": 0.25,
    }


def test_every_metric_is_declared():
    several = [*drawn("a", [1, 0, 1]), *drawn("b", [0, 0, 0])]
    problems = [several[0][0], several[3][0]]
    rows = scored(problems, *columns(several)[1:], num_samples=3)
    for prompt in (None, "r1_zero"):
        names = {**summarize(request(), rows, training_prompt=prompt)}
        names |= identity(request(), training_prompt=prompt, grader_version="1")
        assert [name for name in names if not is_declared(name)] == []


def test_what_is_undefined_is_left_out_and_json_stays_valid():
    all_wrong = summarize(request(), rows_of(FOUR[1:3]))
    assert "eval/avg_response_length_correct" not in all_wrong
    no_tokens = summarize(request(), rows_of(FOUR[3:]))
    assert "eval/avg_token_entropy" not in no_tokens
    empty = summarize(request(), [])
    assert empty == {"eval/num_problems": 0}
    json.dumps([all_wrong, no_tokens, empty], allow_nan=False)


def test_several_answers_to_a_problem_give_pass_at_k_and_count_as_one_problem():
    several = [*drawn("a", [1, 0, 1, 0]), *drawn("b", [0, 0, 0, 0]), *drawn("c", [0, 0, 1, 0])]
    problems = [several[i][0] for i in (0, 4, 8)]
    rows = scored(problems, *columns(several)[1:], num_samples=4)
    metrics = summarize(request(), rows)
    assert metrics["eval/accuracy"] == metrics["eval/pass_at_1"] == pytest.approx(3 / 12)
    # of the 6 pairs of answers, 5 hold a right one to a and 3 one to c
    assert metrics["eval/pass_at_2"] == pytest.approx((5 / 6 + 3 / 6) / 3)
    assert metrics["eval/pass_at_4"] == pytest.approx(2 / 3)
    assert metrics["eval/num_problems"] == 3
    shares, centre = [0.5, 0.0, 0.25], 0.25
    variance = sum((share - centre) ** 2 for share in shares) / 3
    assert metrics["eval/accuracy_stderr"] == pytest.approx(math.sqrt(variance / 3))
    assert "eval/pass_at_1" not in summarize(request(), rows_of(FOUR))


def test_many_subjects_are_in_the_table_and_not_in_the_curves():
    many = [item(f"p{i}", tokens=1) for i in range(17)]
    many = [(replace(p, subject=f"Subject {p.id}"), c, g) for p, c, g in many]
    metrics = summarize(request(), rows_of(many))
    assert not [name for name in metrics if "subject" in name]
    assert len(breakdown(rows_of(many))["by_subject"]) == 17


def test_only_other_prompts_have_their_name_in_the_metric():
    own = summarize(request("r1_zero"), rows_of(FOUR), training_prompt="r1_zero")
    other = summarize(request("r1_zero"), rows_of(FOUR), training_prompt="default")
    assert own["eval/accuracy"] == other["eval/r1_zero/accuracy"] == 0.25
    assert all(name.startswith("eval/r1_zero/") for name in other)


def test_a_row_names_what_was_scored_and_how():
    sampled = replace(request(), sampling=Sampling(8, temperature=0.7, num_samples=4, seed=3))
    assert identity(request(), training_prompt="default", grader_version="1.1") == {
        "eval/prompt": "default",
        "eval/decoding": "greedy, 8 tokens",
        "eval/grader_version": "1.1",
        "eval/weights_fingerprint": "f",
    }
    other = identity(sampled, training_prompt="r1_zero", grader_version="1.1")
    assert other["eval/default/decoding"] == "T=0.7, n=4, seed 3, 8 tokens"


def test_the_order_of_completions_and_grades_does_not_matter():
    problems, completions, grades = columns(FOUR)
    shuffled = scored(problems, completions[::-1], grades[2:] + grades[:2])
    assert shuffled == scored(problems, completions, grades)


@pytest.mark.parametrize("keep", [[0, 1, 2], [0, 1, 2, 2], [0, 1, 2, 3, 3]])
def test_a_missing_or_doubled_completion_is_no_accuracy(keep):
    problems, completions, grades = columns(FOUR)
    with pytest.raises(ValueError, match="expected one completion and one grade"):
        scored(problems, [completions[i] for i in keep], grades)


def test_the_tables_count_by_verdict_subject_and_level():
    tables = breakdown(scored(*columns(FOUR)))
    assert tables["verdicts"] == {"correct": 1, "wrong": 1, "no_answer": 1, "timeout": 1}
    assert tables["by_subject"]["algebra"]["num_problems"] == 4
    low, high = wilson_interval(1.0, 1)
    assert tables["by_level"]["1"] == {
        "num_problems": 1, "accuracy": 1.0, "stderr": 0.0, "low": low, "high": high,
    }  # fmt: skip
    assert tables["by_level"]["2"]["accuracy"] == 0.0


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
