import time

import pytest

from sft_dist.evaluation import cost as cost_module
from sft_dist.evaluation.cost import EvaluationCost


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(cost_module.time, "monotonic", lambda: now[0])
    return now


def test_a_step_has_the_time_spent_since_the_step_before(clock):
    cost = EvaluationCost()
    for spent in (0.25, 0.5):
        with cost.timed():
            clock[0] += spent
        clock[0] += 10
    assert cost.take() == 0.75
    assert cost.take() == 0.0


def test_time_before_a_failure_counts(clock):
    cost = EvaluationCost()

    def fail():
        clock[0] += 1.0
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"), cost.timed():
        fail()
    assert cost.take() == 1.0


def test_the_share_and_the_slow_steps_are_told(clock):
    cost = EvaluationCost()
    for step in range(199):
        for _ in range(2):
            with cost.timed():
                clock[0] += 1.5 if step < 2 else 0.005
        clock[0] += 1.0
        cost.take()
    assert "at most 3000 ms, longest stop 1500 ms" in cost.describe()
    assert "7.97 s of 207 s" in cost.describe()
    assert time.monotonic() == clock[0]
