"""metrics.jsonl: append-only, on disk at once, readable after any kill."""

import json
import math

import pytest

from sft_dist.tracking.record import FILE_NAME, MetricsRecord, last_by, read_rows


def lines(run_dir):
    return (run_dir / FILE_NAME).read_text().splitlines()


def test_a_row_is_one_line_with_time_and_attempt(tmp_path):
    record = MetricsRecord(tmp_path, attempt=2)
    record.write({"step": 1, "train/loss": 0.5})
    (line,) = lines(tmp_path)
    row = json.loads(line)
    assert row["time"] > 1e9
    assert {k: v for k, v in row.items() if k != "time"} == {
        "attempt": 2, "step": 1, "train/loss": 0.5,
    }  # fmt: skip
    record.close()


def test_a_row_is_on_disk_before_the_record_is_closed(tmp_path):
    record = MetricsRecord(tmp_path, attempt=1)
    for step in range(1, 4):
        record.write({"step": step})
        assert len(lines(tmp_path)) == step
    record.close()


def test_an_evaluation_reported_again_after_a_kill_is_not_written_twice(tmp_path):
    evaluation = {"eval/step": 5, "eval/accuracy": 1 / 3}
    for attempt in (1, 2):
        record = MetricsRecord(tmp_path, attempt)
        record.write(evaluation)
        record.write({"step": 6, "train/loss": 0.5})
        record.write(evaluation)
        record.close()
    assert [row.get("eval/step") for row in read_rows(tmp_path)] == [5, None, None]
    record = MetricsRecord(tmp_path, 3)
    record.write({**evaluation, "eval/accuracy": 0.5})  # graded again: another row
    record.close()
    assert last_by(read_rows(tmp_path), "eval/step")[5]["eval/accuracy"] == 0.5


def test_an_evaluation_whose_comparison_has_changed_since_is_not_written_twice(tmp_path):
    evaluation = {"eval/step": 5, "eval/accuracy": 0.5}
    for attempt, gained in ((1, {}), (2, {"eval/vs_base_gained": 3})):
        record = MetricsRecord(tmp_path, attempt)
        record.write({**evaluation, **gained})
        record.close()
    assert len(read_rows(tmp_path)) == 1


def test_the_evaluations_of_several_prompts_at_one_step_are_read_together(tmp_path):
    record = MetricsRecord(tmp_path, 1)
    record.write({"eval/step": 5, "eval/accuracy": 0.25})
    record.write({"eval/step": 5, "eval/r1_zero/accuracy": 0.5})
    record.close()
    row = last_by(read_rows(tmp_path), "eval/step")[5]
    assert (row["eval/accuracy"], row["eval/r1_zero/accuracy"]) == (0.25, 0.5)


def test_a_later_attempt_appends(tmp_path):
    for attempt in (1, 2):
        record = MetricsRecord(tmp_path, attempt)
        record.write({"step": 5, "train/loss": float(attempt)})
        record.close()
    assert [row["attempt"] for row in read_rows(tmp_path)] == [1, 2]


def test_a_line_torn_by_a_kill_is_passed_over_and_spoils_no_other(tmp_path):
    first = MetricsRecord(tmp_path, attempt=1)
    first.write({"step": 1})
    first.close()
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write('{"time": 1.0, "attempt": 1, "ste')
    second = MetricsRecord(tmp_path, attempt=2)
    second.write({"step": 2})
    second.close()
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2]
    assert len(lines(tmp_path)) == 3


def test_a_whole_file_gets_no_empty_line(tmp_path):
    for attempt in (1, 2, 3):
        record = MetricsRecord(tmp_path, attempt)
        record.write({"step": attempt})
        record.close()
    assert len(lines(tmp_path)) == 3
    assert all(lines(tmp_path))


def test_a_name_that_is_not_declared_is_an_error_and_writes_nothing(tmp_path):
    record = MetricsRecord(tmp_path, attempt=1)
    with pytest.raises(KeyError, match="train/lr"):
        record.write({"step": 1, "train/lr": 1.0})
    record.close()
    assert lines(tmp_path) == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_json_does_not_know_is_an_error(tmp_path, value):
    record = MetricsRecord(tmp_path, attempt=1)
    with pytest.raises(ValueError, match="JSON"):
        record.write({"step": 1, "train/loss": value})
    record.close()
    assert lines(tmp_path) == []


def test_a_run_without_a_record_has_no_rows(tmp_path):
    assert read_rows(tmp_path) == []


def test_the_last_row_of_a_step_counts_and_steps_ascend():
    rows = [
        {"step": 3, "train/loss": 3.0},
        {"step": 4, "train/loss": 4.0},
        {"eval/step": 3, "eval/accuracy": 0.5},
        {"step": 3, "train/loss": 3.5},
        {"eval/step": 0, "eval/accuracy": 0.1},
    ]
    steps = last_by(rows, "step")
    assert list(steps) == [3, 4]
    assert steps[3]["train/loss"] == 3.5
    assert list(last_by(rows, "eval/step")) == [0, 3]
