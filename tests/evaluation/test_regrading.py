"""Stored completions graded again: nothing is generated, what changed is told."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from sft_dist.errors import EvaluationError
from sft_dist.evaluation.queue import EvaluationQueue
from sft_dist.evaluation.regrading import disagreements, find_run_dir, regrade
from sft_dist.evaluation.request import (
    EvaluationRequest,
    Problem,
    Sampling,
    problems_file,
    problems_text,
)

ANSWERS = {"a": r"It is $\boxed{\frac{1}{2}}$.", "b": r"So $\boxed{7}$.", "c": "No box."}


@pytest.fixture
def run_dir(tmp_path):
    """One published evaluation of three problems, all with the answer 1/2, never graded."""
    problems = [Problem(i, "p", [1], "?", "1/2", "Algebra", 1) for i in ANSWERS]
    text = problems_text(problems)
    request = EvaluationRequest(
        step=4, model_dir="m", weights_fingerprint="f", prompt_name="default", form="boxed",
        sampling=Sampling(8), problems_file=problems_file(text), num_problems=3,
    )  # fmt: skip
    queued = EvaluationQueue(tmp_path).submit(request, text)
    rows = [
        {"id": i, "response": response, "num_tokens": 4, "finish_reason": "stop",
         "mean_token_entropy": 0.5}
        for i, response in ANSWERS.items()
    ]  # fmt: skip
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (queued.directory / "completions.jsonl").write_text(lines)
    return tmp_path


def grades_file(run_dir):
    (path,) = run_dir.glob("evaluations/step-*/*/grades.jsonl")
    return path


def test_completions_are_graded_and_summed_up_again(run_dir):
    (regraded,) = regrade(run_dir)
    assert regraded.result.metrics["eval/accuracy"] == pytest.approx(1 / 3)
    assert regraded.accuracy_before is None
    verdicts = [json.loads(line)["verdict"] for line in grades_file(run_dir).open()]
    assert verdicts == ["correct", "wrong", "no_answer"]


def test_verdicts_that_changed_are_told_with_the_accuracy_before(run_dir):
    list(regrade(run_dir))
    path = grades_file(run_dir)
    path.write_text(path.read_text().replace('"correct"', '"wrong"'))
    (regraded,) = regrade(run_dir)
    assert regraded.changed == [("a", "wrong", "correct")]
    assert regraded.accuracy_before == pytest.approx(1 / 3)


@pytest.mark.parametrize("part", ["", "evaluations", "evaluations/step-000004"])
def test_a_run_or_any_part_of_its_evaluations_can_be_named(run_dir, part):
    assert find_run_dir(run_dir / part) == run_dir
    assert len(list(regrade(run_dir / part))) == 1


def test_disagreements_with_the_second_grader_are_listed_and_kept(run_dir, monkeypatch):
    list(regrade(run_dir))
    second = import_module("sft_dist.grading.second")
    opinions = {"a": False, "b": None, "c": False}  # b: it did not finish
    monkeypatch.setattr(second, "second_opinions", lambda pairs, form: list(opinions.values()))
    ((queued, rows),) = disagreements(run_dir)
    assert [(row["id"], row["verdict"], row["second"]) for row in rows] == [("a", "correct", False)]
    kept = (queued.directory / "disagreements.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in kept] == rows


@pytest.mark.slow
def test_math_verify_itself_can_be_the_second_grader(run_dir):
    list(regrade(run_dir))
    ((_, rows),) = disagreements(run_dir)
    assert rows == []  # both take 1/2 for 1/2, and 7 for something else


def test_a_path_without_completions_is_told(tmp_path):
    with pytest.raises(EvaluationError, match="expected a run directory"):
        list(regrade(Path("/")))
    (tmp_path / "evaluations").mkdir()
    with pytest.raises(EvaluationError, match="found none"):
        list(regrade(tmp_path))
