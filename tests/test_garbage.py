"""The collector is off during a start, and later leaves alone what that has made."""

import gc

import pytest

from sft_dist.garbage import pause_collector, resume_collector


@pytest.fixture(autouse=True)
def as_it_was():
    yield
    gc.enable()
    gc.unfreeze()


def test_what_a_start_makes_is_never_looked_through_again():
    pause_collector()
    assert not gc.isenabled()
    made = [[] for _ in range(1000)]
    resume_collector()
    assert gc.isenabled()
    assert gc.get_freeze_count() > len(made)


def test_garbage_of_later_is_collected():
    resume_collector()
    cycle: list = []
    cycle.append(cycle)
    del cycle
    assert gc.collect() >= 1
