import json

import pytest

from sft_dist.reporting.run import read_run, run_dir_fault
from tests.reporting.made_runs import (
    ask,
    claim,
    evaluate,
    made_problems,
    make_run,
    training_row,
    write_lines,
    write_run_files,
)


def test_the_sentences_say_what_trained_and_from_where_to_where(run_dir):
    what, change, *_ = read_run(run_dir).data["sentences"]
    assert (
        what
        == "Qwen2.5-Math-1.5B on MATH: 100 of 100 steps of 256 examples, peak learning rate 2e-05."
    )
    data = read_run(run_dir).data["evaluations"]
    first, last = data[0]["rates"]["accuracy"], data[-1]["rates"]["accuracy"]
    assert f"from {first:.1%} [" in change
    assert f"to {last:.1%} [" in change
    assert f"{100 * (last - first):+.1f} points [" in change
    assert "McNemar" in change


def test_the_best_step_is_told_where_it_is_not_the_last(tmp_path):
    run_dir = make_run(tmp_path / "run", skills=(0.3, 0.7, 0.4))
    assert read_run(run_dir).data["sentences"][-1].endswith("at step 50.")


def test_changes_count_problems_against_the_first_evaluation(run_dir):
    view = read_run(run_dir)
    first, *_, last = view.data["evaluations"]
    before = {a.problem: a.right for a in view.scores.answers[first["name"]]}
    after = {a.problem: a.right for a in view.scores.answers[last["name"]]}
    assert last["change"]["gained"] == sum(after[i] and not before[i] for i in after)
    assert last["change"]["lost"] == sum(before[i] and not after[i] for i in after)
    assert last["base"] == first["name"]
    assert first["change"] is None


def test_evaluations_without_files_come_from_the_record(run_dir):
    rows = [training_row(1), {"time": 1.0, "attempt": 1, "eval/step": 75, "eval/accuracy": 0.5,
                              "eval/num_problems": 60}]  # fmt: skip
    write_lines(run_dir / "metrics.jsonl", rows)
    found = {e["step"]: e for e in read_run(run_dir).data["evaluations"]}
    assert sorted(found) == [0, 50, 75, 100]
    assert found[75]["name"] is None
    assert found[75]["rates"]["interval"] is not None


def test_another_prompt_is_a_series_of_its_own(run_dir):
    evaluate(run_dir, 60, made_problems(60), skill=0.9, prompt_name="r1_zero")
    found = {e["step"]: e for e in read_run(run_dir).data["evaluations"]}
    assert found[60]["series"] == 1
    assert {found[step]["series"] for step in (0, 50, 100)} == {0}
    assert found[60]["change"] is None


def test_a_run_that_has_just_begun_is_shown(tmp_path):
    write_run_files(tmp_path / "run", state="running", reason="training")
    data = read_run(tmp_path / "run").data
    assert data["state"]["headline"] == "running"
    assert data["evaluations"] == []
    assert "No evaluation has been graded yet." in data["sentences"]


def test_a_stopped_run_is_where_its_status_says(run_dir):
    status = {"state": "requeue", "reason": "stopped", "time": 1.0, "step": 47}
    (run_dir / "status.json").write_text(json.dumps(status))
    data = read_run(run_dir).data
    assert data["step"] == 47  # the last row is of step 40
    assert any("47 of 100 steps" in sentence for sentence in data["sentences"])


def test_a_run_that_only_evaluates_is_called_by_its_model(tmp_path):
    evaluate(tmp_path, 50, made_problems(9), skill=0.5)
    what, change = read_run(tmp_path).data["sentences"]
    assert what == "checkpoint-50."
    assert change.startswith("Accuracy ")


def test_open_and_failed_evaluations_are_noted(run_dir):
    claim(ask(run_dir, 75))
    ask(run_dir, 80)
    notes = " ".join(read_run(run_dir).data["notes"])
    assert "steps 75 are being generated" in notes
    assert "steps 80 wait for a worker" in notes


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "status.json", "metrics.jsonl",
                                  "evaluations/problems-1.jsonl"])  # fmt: skip
@pytest.mark.parametrize("content", [None, "", "{", "[1]", "\x00\x01"])
def test_any_file_may_be_missing_or_damaged(run_dir, name, content):
    path = run_dir / name
    path.unlink() if content is None else path.write_text(content)
    json.dumps(read_run(run_dir).data, allow_nan=False)


def test_damaged_rows_are_noted_by_their_lines(run_dir):
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "train/lo')
    assert any("1 damaged lines" in note for note in read_run(run_dir).data["notes"])


def test_fingerprints_of_checkpoints_are_those_that_evaluations_computed(run_dir):
    for found in read_run(run_dir).data["checkpoints"]:
        assert found["fingerprint"].startswith(f"{found['step']:04d}f")


def test_what_the_real_writers_leave_is_read(tmp_path):
    from sft_dist.evaluation.queue import EvaluationQueue
    from sft_dist.evaluation.regrading import regrade
    from sft_dist.evaluation.request import (
        EvaluationRequest,
        Problem,
        Sampling,
        problems_file,
        problems_text,
    )

    problems = [Problem(i, "p", [1], "?", "7", "Algebra", 1) for i in ("a", "b")]
    text = problems_text(problems)
    request = EvaluationRequest(
        step=4, model_dir="m", weights_fingerprint="f", prompt_name="default", form="boxed",
        sampling=Sampling(8), problems_file=problems_file(text), num_problems=2,
    )  # fmt: skip
    queued = EvaluationQueue(tmp_path).submit(request, text)
    rows = [{"id": i, "response": rf"\boxed{{{said}}}", "num_tokens": 4, "finish_reason": "stop",
             "mean_token_entropy": 0.5} for i, said in (("a", 7), ("b", 8))]  # fmt: skip
    write_lines(queued.directory / "completions.jsonl", rows)
    (regraded,) = regrade(tmp_path)
    (evaluation,) = read_run(tmp_path).data["evaluations"]
    assert evaluation["step"] == 4
    assert evaluation["rates"]["accuracy"] == regraded.result.metrics["eval/accuracy"] == 0.5
    assert evaluation["grader"] == regraded.result.summary["grader_version"]


def test_a_directory_that_is_no_run_is_told(tmp_path, run_dir):
    assert "--output_dir" in run_dir_fault(tmp_path / "nothing")
    assert run_dir_fault(run_dir) is None
