"""Linear warm-up, cosine to 0, and how long the warm-up is when nobody says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft_dist.errors import ConfigError
from sft_dist.preparation import resolve_warmup
from sft_dist.schedule import default_warmup_steps, learning_rate_at


def rates(total_steps, warmup_steps, peak=1.0):
    return [
        learning_rate_at(step, peak=peak, warmup_steps=warmup_steps, total_steps=total_steps)
        for step in range(total_steps)
    ]


def test_the_warm_up_is_a_tenth_of_the_run_and_at_most_100_steps():
    assert [default_warmup_steps(n) for n in (1, 9, 10, 90, 999, 1000, 5000)] == [
        0, 0, 1, 9, 99, 100, 100,
    ]  # fmt: skip


def test_an_explicit_warm_up_is_taken_as_it_is():
    assert resolve_warmup(7, 90) == 7
    assert resolve_warmup(0, 90) == 0
    assert resolve_warmup(None, 90) == 9


@pytest.mark.parametrize("explicit", [90, 91])
def test_a_warm_up_as_long_as_the_run_is_a_fault_that_names_both(explicit):
    with pytest.raises(ConfigError, match=rf"--warmup_steps.*90 steps, found {explicit}"):
        resolve_warmup(explicit, 90)


def test_the_warm_up_rises_in_equal_steps_and_moves_at_once():
    assert rates(20, 4)[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_the_cosine_is_at_half_the_peak_half_way_and_at_0_after_the_last_step():
    assert rates(104, 4, peak=2.0)[54] == pytest.approx(1.0)
    assert rates(104, 4)[29] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    end = learning_rate_at(104, peak=2.0, warmup_steps=4, total_steps=104)
    assert end == pytest.approx(0.0, abs=1e-12)


def test_without_warm_up_the_first_step_is_at_the_peak():
    assert rates(10, 0)[0] == 1.0


@given(st.integers(1, 400), st.data())
def test_every_update_has_a_rate_above_0_and_none_above_the_peak(total_steps, data):
    warmup_steps = data.draw(st.integers(0, total_steps - 1))
    found = rates(total_steps, warmup_steps, peak=3e-5)
    assert all(0 < rate <= 3e-5 * (1 + 1e-12) for rate in found)
    assert found[:warmup_steps] == sorted(found[:warmup_steps])
    assert found[warmup_steps:] == sorted(found[warmup_steps:], reverse=True)
    assert max(found) == pytest.approx(3e-5)
