"""The global batches of a run: every example once an epoch, whatever the batch."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft_dist.data.sampler import BatchPlan, epoch_order

PLAN = BatchPlan(num_examples=37, global_batch_size=5, num_epochs=3, seed=42)

plans = st.builds(
    BatchPlan,
    num_examples=st.integers(1, 200),
    global_batch_size=st.integers(1, 250),
    num_epochs=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)


def epoch(plan, number):
    first = number * plan.steps_per_epoch
    return [plan.global_batch(first + i).tolist() for i in range(plan.steps_per_epoch)]


@settings(deadline=None, max_examples=60)
@given(plans)
def test_every_example_comes_exactly_once_an_epoch(plan):
    for number in range(plan.num_epochs):
        seen = [index for batch in epoch(plan, number) for index in batch]
        assert sorted(seen) == list(range(plan.num_examples))


@settings(deadline=None, max_examples=60)
@given(plans)
def test_only_the_last_batch_of_an_epoch_is_short_and_none_is_empty(plan):
    sizes = [len(batch) for batch in epoch(plan, 0)]
    assert set(sizes[:-1]) <= {plan.global_batch_size}
    assert 1 <= sizes[-1] <= plan.global_batch_size


@settings(deadline=None, max_examples=60)
@given(plans, st.one_of(st.none(), st.integers(1, 1000)))
def test_the_run_ends_with_its_last_epoch_or_with_max_steps(plan, max_steps):
    full = plan.num_epochs * -(-plan.num_examples // plan.global_batch_size)
    assert plan.total_steps == full
    assert replace(plan, max_steps=max_steps).total_steps == min(full, max_steps or full)


def test_math_at_batch_256_has_30_steps_an_epoch():
    plan = BatchPlan(num_examples=7500, global_batch_size=256, num_epochs=3, seed=0)
    assert (plan.steps_per_epoch, plan.total_steps) == (30, 90)
    assert len(plan.global_batch(29)) == 7500 - 29 * 256


def test_epochs_end_where_a_whole_number_of_them_is_done():
    assert [step for step in range(1, PLAN.total_steps + 1) if PLAN.is_epoch_end(step)] == [
        8, 16, 24,
    ]  # fmt: skip


def test_a_batch_is_the_same_whenever_and_in_whatever_order_it_is_asked_for():
    forward = [PLAN.global_batch(step).tolist() for step in range(PLAN.total_steps)]
    epoch_order.cache_clear()
    backward = [PLAN.global_batch(step).tolist() for step in reversed(range(PLAN.total_steps))]
    assert forward == backward[::-1]


def test_the_order_is_this_one_on_every_machine_and_in_every_version():
    """A resumed run must find its batches again, also after numpy was updated."""
    assert PLAN.global_batch(0).tolist() == [23, 18, 8, 20, 12]
    assert PLAN.global_batch(8).tolist() == [11, 14, 12, 17, 27]


def test_epochs_and_seeds_differ_in_their_order():
    orders = {tuple(epoch_order(37, seed, number)) for seed in range(4) for number in range(4)}
    assert len(orders) == 16


def test_the_batch_size_cuts_one_order_and_does_not_change_it():
    wide = replace(PLAN, global_batch_size=11)
    for number in range(3):
        flat = [[i for batch in epoch(plan, number) for i in batch] for plan in (PLAN, wide)]
        assert flat[0] == flat[1]


def test_the_number_of_epochs_does_not_change_the_batches():
    longer = replace(PLAN, num_epochs=9)
    for step in range(PLAN.total_steps):
        assert np.array_equal(PLAN.global_batch(step), longer.global_batch(step))


def test_an_epoch_is_shuffled():
    order = epoch_order(1000, 42, 0)
    assert abs(np.corrcoef(np.arange(1000), order)[0, 1]) < 0.1


@pytest.mark.parametrize("seed", [0, 2**31, 2**63, 2**64 - 2])
def test_seeds_of_64_bits_differ_from_their_neighbours(seed):
    assert epoch_order(50, seed, 1).tolist() != epoch_order(50, seed + 1, 1).tolist()
