"""The watch over the ranks: whom it names, when it ends a process, and when it only speaks."""

import logging
import subprocess
import sys
import time

import pytest
import torch

from sft_dist.runtime import watch as watch_module
from sft_dist.runtime.distributed import Ranks
from sft_dist.runtime.noticeboard import Position
from sft_dist.runtime.watch import RankWatch, describe


def at(step, moves, beat, doing="computing"):
    return Position(step, doing, moves, beat)


def test_a_rank_whose_beat_stands_still_is_named_with_its_last_place():
    said, is_fault = describe(
        {0: at(7, 21, 50), 1: at(6, 18, 40)}, {0: at(7, 21, 55), 1: at(6, 18, 40)}, world_size=2
    )
    assert is_fault
    assert said.startswith("no sign of life of rank 1, last seen at step 6, computing")


def test_ranks_that_were_never_heard_are_named_too():
    said, is_fault = describe({0: at(0, 1, 3)}, {0: at(0, 1, 8)}, world_size=3)
    assert is_fault
    assert said.startswith("no sign of life of ranks 1, 2, never heard of")


def test_a_rank_that_lives_and_has_not_come_so_far_is_named_within_a_step_too():
    waiting = at(7, 20, 45, "waiting for its batch")
    said, is_fault = describe(
        {0: at(7, 21, 50), 1: at(7, 20, 40)}, {0: at(7, 21, 55), 1: waiting}, world_size=2
    )
    assert is_fault
    assert said == "rank 1 still at step 7, waiting for its batch"


def test_a_long_step_of_all_ranks_is_no_fault():
    before, after = ({rank: at(7, 21, beat) for rank in range(4)} for beat in (50, 55))
    said, is_fault = describe(before, after, world_size=4)
    assert not is_fault
    assert said.startswith("all ranks live and are at step 7")


@pytest.mark.parametrize("after", [None, {}])
def test_a_store_that_does_not_answer_is_a_fault_of_its_host(after):
    said, is_fault = describe(None, after, world_size=2)
    assert is_fault
    assert "host of rank 0" in said


class Board:
    """A noticeboard whose second rank is `other` for ever."""

    def __init__(self, other):
        self.other, self.beat = other, 0

    def positions(self):
        self.beat += 1
        return {0: at(3, 9, self.beat), 1: self.other(self.beat)}


@pytest.fixture
def watching(monkeypatch):
    """A watch of a hundredth of the usual times, running; what it did to the process."""
    for name, seconds in (("LOOK_SECONDS", 0.01), ("SILENT_SECONDS", 0.02), ("END_AFTER", 0.2)):
        monkeypatch.setattr(watch_module, name, seconds)
    ended = []
    monkeypatch.setattr(watch_module.os, "_exit", lambda code: ended.append(code))
    made = []

    def make(other, timeout=0.1):
        watch = RankWatch(Ranks(0, 0, 2, torch.device("cpu")), timeout)
        watch._board = Board(other)
        watch.last_words = lambda: (ended.append("last words"), watch._stopping.set())
        made.append(watch)
        import threading

        threading.Thread(target=watch._run, daemon=True).start()
        return watch

    yield make, ended
    for watch in made:
        watch._stopping.set()


def silent(_):
    return at(3, 9, 1)


def alive(beat):
    return at(3, 9, beat)


def wait_until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_a_process_that_waits_for_a_silent_rank_says_so_and_then_ends(watching, caplog):
    make, ended = watching
    watch = make(silent)
    assert wait_until(lambda: watch.verdict)
    assert ended == []  # the backend's own error comes first, where it comes
    assert "no sign of life of rank 1" in watch.verdict
    assert "--collective_timeout" in watch.verdict
    assert wait_until(lambda: ended[:1] == ["last words"])


def test_a_process_whose_ranks_are_all_in_a_long_step_is_only_warned(watching, caplog):
    make, ended = watching
    watch = make(alive)
    assert wait_until(lambda: watch.verdict)
    time.sleep(0.5)
    assert ended == []
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING]


def test_training_that_goes_on_takes_the_verdict_back(watching):
    make, _ = watching
    watch = make(silent)
    assert wait_until(lambda: watch.verdict)
    watch.at(4, "computing")
    assert watch.verdict is None
    assert watch.where() == "step 4, computing"


def test_who_moves_is_never_judged(watching):
    make, ended = watching
    watch = make(silent, timeout=0.3)
    for step in range(60):
        watch.at(step, "computing")
        time.sleep(0.01)
    assert watch.verdict is None
    assert ended == []


def test_who_leaves_in_its_own_way_is_not_ended(watching):
    make, ended = watching
    watch = make(silent)
    assert wait_until(lambda: watch.verdict)
    watch.stop()
    time.sleep(0.5)
    assert ended == []


STUCK_LAST_WORDS = """
import time, torch
from sft_dist.runtime import watch
from sft_dist.runtime.distributed import Ranks
watch.LAST_WORDS_SECONDS = 0.2
stuck = watch.RankWatch(Ranks(0, 0, 2, torch.device("cpu")), 1)
stuck.last_words = lambda: time.sleep(60)
stuck._end_process()
"""


def test_last_words_that_never_end_do_not_keep_the_process():
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", STUCK_LAST_WORDS], check=False, timeout=50)
    assert done.returncode == watch_module.FAILED
    assert time.monotonic() - began < 40
