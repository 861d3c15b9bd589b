"""Requests to stop and to save: noted at once, obeyed between two steps."""

import os
import signal
from types import SimpleNamespace

import pytest

from sft_dist.runtime import stopping
from sft_dist.runtime.stopping import (
    SIGNALS,
    drop_stale_stop,
    stop_on_signals,
    take_save_request,
)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_the_process_lives(tmp_path, number):
    with stop_on_signals(tmp_path) as request:
        assert not request.requested()
        os.kill(os.getpid(), number)
        assert request.requested()
        assert request.reason == number.name


def test_the_signals_are_those_of_slurm_torchrun_and_the_keyboard():
    assert set(SIGNALS) == {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1}


@pytest.fixture
def exits(monkeypatch):
    """The codes that this process would have ended with."""
    codes = []
    monkeypatch.setattr(stopping.os, "_exit", codes.append)
    return codes


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still; `clock.now` sets it."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(stopping.time, "monotonic", lambda: clock.now)
    return clock


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_scheduler_and_launcher_both_deliver_counts_once(
    tmp_path, exits, clock, number
):
    """Slurm or the terminal signals every process, and torchrun passes its own on."""
    with stop_on_signals(tmp_path) as request:
        for now in (1000.0, 1000.0, 1001.0):
            clock.now = now
            os.kill(os.getpid(), number)
        assert request.reason == number.name
    assert exits == []


@pytest.mark.parametrize("number", SIGNALS)
def test_the_same_signal_later_ends_the_process_at_once(tmp_path, exits, clock, number):
    with stop_on_signals(tmp_path) as request:
        os.kill(os.getpid(), number)
        assert exits == []
        clock.now += 60
        os.kill(os.getpid(), number)
        assert request.requested()
    assert exits == [128 + number]


def test_the_end_of_the_time_after_its_warning_leaves_the_save_going(tmp_path, exits, clock):
    """Slurm's --signal comes first, its SIGTERM at the limit, and SIGKILL only after KillWait."""
    with stop_on_signals(tmp_path) as request:
        os.kill(os.getpid(), signal.SIGUSR1)
        clock.now += 60
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.reason == "SIGUSR1"
    assert exits == []


def test_the_old_handlers_are_back_afterwards_also_after_an_error(tmp_path):
    before = {number: signal.getsignal(number) for number in SIGNALS}
    with stop_on_signals(tmp_path):
        assert all(signal.getsignal(number) != before[number] for number in SIGNALS)
    assert {number: signal.getsignal(number) for number in SIGNALS} == before
    with pytest.raises(RuntimeError), stop_on_signals(tmp_path):
        raise RuntimeError
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def test_a_stop_file_asks_to_stop(tmp_path):
    with stop_on_signals(tmp_path) as request:
        assert not request.requested()
        (tmp_path / "STOP").touch()
        assert request.requested()
        assert request.reason == "STOP file"


def test_a_stop_file_may_say_why(tmp_path):
    (tmp_path / "STOP").write_text("requeue: the time is over\n")
    with stop_on_signals(tmp_path) as request:
        assert request.requested()
        assert request.reason == "STOP file: requeue: the time is over"


def test_a_request_stays_when_its_file_goes(tmp_path):
    with stop_on_signals(tmp_path) as request:
        (tmp_path / "STOP").touch()
        assert request.requested()
        (tmp_path / "STOP").unlink()
        assert request.requested()


def test_the_first_reason_is_kept(tmp_path):
    with stop_on_signals(tmp_path) as request:
        os.kill(os.getpid(), signal.SIGUSR1)
        (tmp_path / "STOP").touch()
        assert request.requested()
        assert request.reason == "SIGUSR1"


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_after_a_stop_file_does_not_kill_the_save(tmp_path, exits, number):
    with stop_on_signals(tmp_path) as request:
        (tmp_path / "STOP").touch()
        assert request.requested()
        os.kill(os.getpid(), number)
    assert exits == []


def test_a_save_file_asks_once(tmp_path):
    assert not take_save_request(tmp_path)
    (tmp_path / "SAVE").touch()
    assert take_save_request(tmp_path)
    assert not take_save_request(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_stop_file_of_an_earlier_attempt_does_not_stop_this_one(tmp_path):
    (tmp_path / "STOP").touch()
    os.utime(tmp_path / "STOP", (1000, 1000))
    drop_stale_stop(tmp_path, since=1001.0)
    with stop_on_signals(tmp_path) as request:
        assert not request.requested()


def test_a_stop_file_made_while_this_attempt_starts_counts(tmp_path):
    (tmp_path / "STOP").touch()
    os.utime(tmp_path / "STOP", (1002, 1002))
    drop_stale_stop(tmp_path, since=1001.0)
    with stop_on_signals(tmp_path) as request:
        assert request.requested()


def test_without_a_stop_file_there_is_nothing_to_drop(tmp_path):
    drop_stale_stop(tmp_path, since=1001.0)
    assert list(tmp_path.iterdir()) == []
