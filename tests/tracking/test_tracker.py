"""What rank 0 writes of the steps it is told of."""

import pytest

from sft_dist.config import from_flat
from sft_dist.tracking.record import read_rows
from sft_dist.tracking.startup import StartupTimes
from sft_dist.tracking.tracker import RunTracker


@pytest.fixture
def logged(tmp_path):
    """The rows of `metrics.jsonl` after the given steps."""

    def make(steps, log_steps, total_steps=20):
        config = from_flat({"wandb_mode": "disabled", "log_steps": log_steps})
        startup = StartupTimes()
        startup.done("engine")
        tracker = RunTracker(
            config, tmp_path, run_id="r", attempt=1, step=steps[0] - 1,
            total_steps=total_steps, startup=startup,
        )  # fmt: skip
        for step in steps:
            tracker.log_step(
                {
                    "step": step, "train/loss": 1.0, "train/grad_norm_preclip": 1.0,
                    "train/learning_rate": 1e-5, "perf/tokens_per_second": 100.0,
                    "perf/step_seconds": 1.0,
                }
            )  # fmt: skip
        tracker.close()
        return read_rows(tmp_path)

    return make


def test_only_every_so_many_steps_are_logged_and_the_first_and_the_last(logged):
    rows = logged(range(1, 21), log_steps=7)
    assert [row["step"] for row in rows] == [1, 7, 14, 20]


def test_the_first_step_after_a_start_says_what_the_start_cost(logged):
    rows = logged(range(9, 12), log_steps=1)
    assert [row["step"] for row in rows if "startup/total_seconds" in row] == [9]
    first = rows[0]
    assert first["train/loss"] == 1.0  # one row a step: readers take the last
    parts = first["startup/engine_seconds"] + first["startup/first_step_seconds"]
    assert first["startup/total_seconds"] == pytest.approx(parts)
