"""One owner at a time: who takes over from whom, and when."""

import json
import time

import pytest

from sft_dist.evaluation.ownership import OwnerLease


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lease(tmp_path, clock):
    made = []

    def make(owner, *, is_trainer=False, beat_seconds=1000.0):
        made.append(
            OwnerLease(
                tmp_path, owner, is_trainer=is_trainer, stale_seconds=10.0,
                beat_seconds=beat_seconds, clock=clock,
            )
        )  # fmt: skip
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_the_first_takes_it_and_the_second_waits(lease):
    first, second = lease("a"), lease("b")
    assert first.tend()
    assert not second.tend()
    assert first.tend()


def test_what_is_released_is_taken_at_once(lease):
    first, second = lease("a"), lease("b")
    first.tend()
    second.tend()
    first.close()
    assert second.tend()
    assert not first.tend()


def test_a_silent_owner_is_replaced_and_notices(lease, clock):
    first, second, third = lease("trainer", is_trainer=True), lease("b"), lease("c")
    first.tend()
    assert not second.tend()
    clock.now = 9.0
    assert not second.tend()
    clock.now = 10.0
    assert second.tend()
    assert not third.tend()
    assert not first.tend()  # it asks
    assert not second.tend()  # and is given way to
    assert not third.tend()
    assert first.tend()


def test_an_owner_that_beats_is_not_replaced(lease, clock):
    first, second = lease("a", beat_seconds=0.02), lease("b")
    first.tend()
    for _ in range(4):
        assert not second.tend()
        clock.now += 9.0
        time.sleep(0.1)
    assert first.tend()


def test_a_trainer_is_given_way_to_by_a_server_that_lives(lease):
    server, trainer = lease("server"), lease("trainer", is_trainer=True)
    assert server.tend()
    assert not trainer.tend()
    assert not server.tend()
    assert trainer.tend()
    assert not server.tend()


def test_a_trainer_replaces_an_earlier_trainer_at_once(lease):
    first, second = (lease(name, is_trainer=True) for name in "ab")
    assert first.tend()
    assert second.tend()
    assert (second.tend(), second._number) == (True, 2)


def test_a_wish_of_a_trainer_that_died_is_forgotten(lease, clock, tmp_path):
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "evaluations" / "wanted.json").write_text(json.dumps({"by": "dead", "beat": 1}))
    server = lease("server")
    assert not server.tend()
    clock.now = 10.0
    assert server.tend()
    assert server.tend()


def test_of_many_that_want_it_one_gets_it(lease):
    many = [lease(str(i)) for i in range(8)]
    assert [one.tend() for one in many].count(True) == 1
