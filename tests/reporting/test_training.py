import pytest

from sft_dist.reporting.training import MAX_POINTS, curve_columns, read_training
from tests.reporting.made_runs import SETTINGS, training_row, write_lines


def read(tmp_path, rows, **settings):
    write_lines(tmp_path / "metrics.jsonl", rows)
    return read_training(tmp_path, {**SETTINGS, **settings})


def test_the_last_row_of_a_step_counts(tmp_path):
    rows = [training_row(step) for step in (1, 2, 3)]
    rows.append(training_row(2, attempt=2, seconds=90, **{"train/loss": 9.0}))
    training = read(tmp_path, rows)
    assert [row["step"] for row in training.rows] == [1, 2, 3]
    assert training.rows[1]["train/loss"] == 9.0


def test_a_resumed_run_stands_where_its_latest_attempt_stands(tmp_path):
    rows = [training_row(step) for step in range(1, 41)]
    rows += [training_row(step, attempt=2, seconds=200 + step) for step in (31, 32, 33)]
    training = read(tmp_path, rows)
    assert training.step == 33
    assert [(a.number, a.first_step, a.last_step) for a in training.attempts] == [
        (1, 1, 40), (2, 31, 33),
    ]  # fmt: skip
    assert training.seconds_per_step == pytest.approx(1.0)  # of the second attempt, not the first


def test_the_time_left_follows_from_rate_and_plan(tmp_path):
    training = read(tmp_path, [training_row(step) for step in range(1, 41)])
    assert training.total_steps == 100  # 2 epochs of 50
    assert training.seconds_left == pytest.approx(60 * 2.0)


def test_max_steps_ends_a_run_before_its_epochs(tmp_path):
    rows = [training_row(step) for step in range(1, 41)]
    assert read(tmp_path, rows, max_steps=70).total_steps == 70


def test_a_run_without_rows_knows_nothing_and_does_not_fail(tmp_path):
    training = read_training(tmp_path, {})
    assert (training.step, training.total_steps, training.seconds_left) == (0, None, None)
    assert curve_columns(training.rows) == {"step": [], "time": []}


def test_rows_with_values_of_another_kind_are_passed_over(tmp_path):
    rows = [{"step": "three"}, {"step": 1, "train/loss": None, "time": "late"}, {"eval/step": None}]
    training = read(tmp_path, rows)
    assert len(training.rows) == 1
    assert training.last_time is None


def test_thinning_keeps_the_spike_and_the_ends():
    rows = [training_row(step) for step in range(1, 20_001)]
    rows[12_345]["train/loss"] = 50.0
    columns = curve_columns(rows)
    assert len(columns["step"]) <= MAX_POINTS + 2
    assert max(columns["train/loss"]) == 50.0
    assert (columns["step"][0], columns["step"][-1]) == (1, 20_000)


def test_curves_hold_null_where_a_row_has_no_value():
    rows = [{"step": 1, "time": 1.0, "train/loss": 2.0}, {"step": 2, "time": 2.0}]
    assert curve_columns(rows)["train/loss"] == [2.0, None]
