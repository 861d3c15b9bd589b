"""One piece of work at a time, and how it ended."""

import os
import sys
import threading

import pytest

from sft_dist.checkpoint import InBackground


def fail():
    raise OSError("disk full")


@pytest.mark.parametrize("asynchronous", [True, False])
def test_an_error_is_handed_over_once(asynchronous):
    background = InBackground(asynchronous=asynchronous)
    background.start(fail, name="save")
    outcome = background.take()
    assert str(outcome.error) == "disk full"
    assert background.take() is None
    assert not background.is_busy


def test_work_is_done_on_another_thread_or_at_once():
    threads = []
    for asynchronous in (True, False):
        background = InBackground(asynchronous=asynchronous)
        background.start(lambda: threads.append(threading.current_thread()), name="save-4")
        assert background.take().error is None
    assert threads[0].name == "save-4"
    assert threads[0].daemon  # a disk that never answers must not keep the process
    assert threads[1] is threading.current_thread()


def test_looking_never_waits_and_says_how_it_stands():
    go = threading.Event()
    background = InBackground(asynchronous=True)
    assert (background.is_busy, background.has_ended, background.has_failed) == (False,) * 3
    background.start(go.wait, name="save")
    assert (background.is_busy, background.has_ended, background.has_failed) == (True, False, False)
    assert background.take(timeout=0.01) is None
    go.set()
    assert background.take() is not None
    background.start(fail, name="save")
    background._thread.join()
    assert (background.is_busy, background.has_ended, background.has_failed) == (True,) * 3
    background.take()
    assert (background.is_busy, background.has_ended, background.has_failed) == (False,) * 3


def test_the_thread_that_writes_gives_way_and_the_one_that_trains_does_not():
    found = []
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    background = InBackground(asynchronous=True)
    background.start(
        lambda: found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())),
        name="save",
    )
    background.take()
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
    assert found == [max(before, 10)] or sys.platform != "linux"
