import pytest

from sft_dist.reporting.evaluations import failures, read_evaluations
from tests.reporting.made_runs import (
    ask,
    claim,
    evaluate,
    made_problems,
    write_json,
)


def only(run_dir):
    (evaluation,) = read_evaluations(run_dir)
    return evaluation


def test_a_request_goes_through_its_states(tmp_path):
    directory = ask(tmp_path, 50, count=9)
    assert only(tmp_path).state == "waiting"
    claim(directory)
    assert only(tmp_path).state == "claimed"
    (directory / "completions.jsonl").write_text("")
    assert only(tmp_path).state == "generated"
    assert only(tmp_path).is_open
    (directory / "grades.jsonl").write_text("")
    write_json(directory / "summary.json", {})
    assert only(tmp_path).state == "graded"
    assert not only(tmp_path).is_open


def test_a_claim_says_who_works_and_how_far_that_is(tmp_path):
    claim(ask(tmp_path, 50), completed=7)
    (attempt,) = only(tmp_path).attempts
    assert (attempt.worker, attempt.completed, attempt.total) == ("worker-1", 7, 9)
    assert attempt.seen is not None


def test_an_ended_attempt_leaves_the_request_waiting_and_is_a_fault(tmp_path):
    claim(ask(tmp_path, 50), state="died", reason="signal 9")
    evaluation = only(tmp_path)
    assert evaluation.state == "waiting"
    assert [what for _, what in failures(evaluation)] == ["attempt 1 died: signal 9"]


def test_a_stopped_attempt_is_no_fault(tmp_path):
    claim(ask(tmp_path, 50), state="stopped")
    assert not list(failures(only(tmp_path)))


def test_a_request_given_up_says_why(tmp_path):
    directory = ask(tmp_path, 50)
    write_json(directory / "failure.json", {"reason": "no such model"})
    evaluation = only(tmp_path)
    assert evaluation.state == "failed"
    assert [what for _, what in failures(evaluation)] == ["given up: no such model"]


def test_a_damaged_request_is_still_seen_by_its_directory(tmp_path):
    directory = ask(tmp_path, 50)
    (directory / "request.json").write_text("{")
    evaluation = only(tmp_path)
    assert (evaluation.step, evaluation.prompt) == (50, "")


def test_the_time_of_the_claim_follows_from_how_long_it_took(tmp_path):
    evaluate(tmp_path, 50, made_problems(4), skill=0.5)
    evaluation = only(tmp_path)
    assert evaluation.attempts[0].claimed == pytest.approx(evaluation.generated - 22.0)


def test_series_differ_by_prompt_decoding_and_problems_only(tmp_path):
    ask(tmp_path, 0)
    ask(tmp_path, 50)
    ask(tmp_path, 60, prompt_name="r1_zero")
    one, two, other = read_evaluations(tmp_path)
    assert one.series == two.series != other.series
