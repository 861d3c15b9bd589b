"""Which evaluations are compared, and what of; the formula is tested in test_statistics.py."""

import json
from dataclasses import replace

import pytest

from sft_dist.evaluation.comparison import compare
from sft_dist.evaluation.queue import EvaluationQueue
from sft_dist.evaluation.request import EvaluationRequest, Sampling, problems_file, problems_text
from sft_dist.evaluation.scoring import score
from sft_dist.evaluation.statistics import mcnemar_p
from sft_dist.grading import grade
from tests.evaluation.models import problem

PROBLEMS = [problem(name, "1+1=", answer="2") for name in "abcd"]


def grade_many(pairs, form):
    return [grade(response, gold, form=form) for response, gold in pairs]


@pytest.fixture
def evaluate(tmp_path):
    """Grades an evaluation at `step` in which the problems named in `right` were answered right."""
    text = problems_text(PROBLEMS)

    def run(step, right, prompt="default", **changes):
        request = EvaluationRequest(
            step, "/m", f"weights {step}", prompt, "boxed", Sampling(max_new_tokens=8),
            problems_file(text), len(PROBLEMS),
        )  # fmt: skip
        queued = EvaluationQueue(tmp_path).submit(replace(request, **changes), text)
        rows = [
            {"id": name, "response": f"\\boxed{{{2 if name in right else 3}}}", "num_tokens": 2,
             "finish_reason": "stop", "mean_token_entropy": 0.1}
            for name in "abcd"
        ]  # fmt: skip
        (queued.directory / "completions.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows)
        )
        return score(queued, tmp_path, grade_many, training_prompt="default")

    return run


def test_problems_gained_and_lost_are_told_by_id():
    found = compare(3, {"a": 1.0, "b": 0.0, "c": 1.0}, {"a": 0.0, "b": 1.0, "c": 1.0})
    assert (found.gained, found.lost, found.step) == (["a"], ["b"], 3)
    assert found.delta == 0.0
    assert found.p_value == 1.0


def test_each_evaluation_is_compared_with_step_0_and_with_the_one_before(evaluate):
    first = evaluate(0, "")
    assert not [name for name in first.metrics if "vs_" in name]
    second = evaluate(5, "ab")
    third = evaluate(9, "bcd")
    assert second.summary["comparisons"]["base"] == second.summary["comparisons"]["previous"]
    base, previous = (third.summary["comparisons"][name] for name in ("base", "previous"))
    assert (base["step"], base["gained"], base["lost"]) == (0, ["b", "c", "d"], [])
    assert (previous["step"], previous["gained"], previous["lost"]) == (5, ["c", "d"], ["a"])
    assert third.metrics["eval/vs_base_delta"] == 0.75
    assert third.metrics["eval/vs_base_p_value"] == pytest.approx(mcnemar_p(3, 0))
    assert third.metrics["eval/vs_previous_gained"] == 2
    assert third.metrics["eval/vs_previous_lost"] == 1


def test_an_evaluation_finished_late_enters_the_summaries_of_later_steps(evaluate, tmp_path):
    evaluate(9, "ab")
    evaluate(0, "a")
    (path,) = tmp_path.glob("evaluations/step-000009/*/summary.json")
    summary = json.loads(path.read_text())
    assert summary["comparisons"]["base"]["gained"] == ["b"]
    assert summary["metrics"]["eval/vs_base_gained"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"prompt_name": "r1_zero"},
        {"sampling": Sampling(max_new_tokens=9)},
        {"form": "r1_zero"},
    ],
)
def test_only_like_is_compared_with_like(evaluate, change):
    evaluate(0, "a", **change)
    assert evaluate(5, "ab").summary["comparisons"] == {}


def test_an_evaluation_graded_by_another_version_is_no_partner(evaluate, tmp_path):
    evaluate(0, "a")
    (path,) = tmp_path.glob("evaluations/step-000000/*/summary.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"grader_version": "0"}))
    assert evaluate(5, "ab").summary["comparisons"] == {}
