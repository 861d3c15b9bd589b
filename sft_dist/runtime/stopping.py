"""Requests to stop or to save: signals on any rank, `STOP` and `SAVE` files in the run directory.

A request is only noted here; all ranks agree on it between two steps.
"""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopRequest:
    """Whether this process was asked to stop, and by what."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self.reason: str | None = None

    def requested(self) -> bool:
        """True after a signal, or while a `STOP` file is there."""
        if self.reason is None and (self._run_dir / "STOP").exists():
            self.reason = "STOP file"
        return self.reason is not None

    def note(self, number: int, _: FrameType | None) -> None:
        """Signal handler. A second signal exits at once: somebody means it."""
        if self.reason is not None:
            os._exit(128 + number)
        self.reason = signal.Signals(number).name


@contextmanager
def stop_on_signals(run_dir: Path) -> Iterator[StopRequest]:
    """Note SIGTERM, SIGINT and SIGUSR1 instead of dying from them."""
    request = StopRequest(run_dir)
    previous = {number: signal.signal(number, request.note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def take_save_request(run_dir: Path) -> bool:
    """Whether a `SAVE` file asks for a checkpoint; the file is removed."""
    path = run_dir / "SAVE"
    if not path.exists():
        return False
    path.unlink(missing_ok=True)
    return True
