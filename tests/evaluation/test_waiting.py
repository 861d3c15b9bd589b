"""What is shown while evaluations are waited for: a real terminal, and a file."""

import fcntl
import logging
import os
import pty
import select
import struct
import termios
from contextlib import contextmanager, redirect_stderr

import pytest

from sft_dist.evaluation import waiting
from sft_dist.evaluation.waiting import wait_view
from sft_dist.evaluation.watcher import Progress


@contextmanager
def terminal():
    """A pseudo-terminal in place of standard error; gives a wait for a text to stand there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with os.fdopen(theirs, "w") as file, redirect_stderr(file):

        def shows(text):
            file.flush()
            found = ""
            while text not in found:
                assert select.select([ours], [], [], 5)[0], f"{text!r} is not in {found!r}"
                found += os.read(ours, 100_000).decode()
            return True

        yield shows
    os.close(ours)


def test_a_terminal_has_a_bar_that_says_what_is_done():
    with terminal() as shows, wait_view() as view:
        view.show(None)
        assert shows("waiting")
        view.show(Progress(num_pending=2, step=4, completed=3, total=12))
        assert shows("evaluating step 4:  25%")
        view.show(Progress(num_pending=2, step=4, completed=12, total=12))
        assert shows("grading step 4: 100%")
        view.show(Progress(num_pending=1, step=8, completed=0, total=20))
        assert shows("evaluating step 8:   0%")


@pytest.mark.parametrize(("seconds", "lines"), [(0.0, 3), (1000.0, 0)])
def test_elsewhere_there_is_a_line_now_and_then(monkeypatch, caplog, seconds, lines):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(waiting, "LINE_SECONDS", seconds)
    with wait_view() as view:
        for completed in (0, 2, 3):
            view.show(Progress(num_pending=1, step=4, completed=completed, total=200))
    assert [r.getMessage() for r in caplog.records] == [
        "evaluating step 4: 0 of 200 answers (the engine starts, or reads the weights); "
        "evaluations open: 1",
        "evaluating step 4: 2 of 200 answers; evaluations open: 1",
        "evaluating step 4: 3 of 200 answers; evaluations open: 1",
    ][:lines]
