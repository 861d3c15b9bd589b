"""Requests to stop or to save: signals on any rank, `STOP` and `SAVE` files in the run directory.

A request is only noted here; all ranks agree on it between two steps.
"""

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
DELIVERY_SECONDS = 3.0
"""One request arrives more than once: Slurm or the terminal signals every process, and torchrun
forwards what it gets; before a time limit Slurm sends USR1 and then TERM."""


class StopRequest:
    """Whether this process was asked to stop, and by what."""

    def __init__(self, run_dir: Path | None) -> None:
        self.run_dir = run_dir
        """Where a `STOP` file counts; None as long as the run has no directory."""
        self._first_seen: dict[int, float] = {}
        self.reason: str | None = None

    def requested(self) -> bool:
        """True after a signal, or while a `STOP` file is there; its text is the reason."""
        path = self.run_dir / "STOP" if self.run_dir is not None else None
        if self.reason is None and path is not None and path.exists():
            text = path.read_text(errors="replace").strip()
            self.reason = f"STOP file: {text}" if text else "STOP file"
        return self.reason is not None

    def ask(self, reason: str) -> None:
        """Ask for it from inside; an earlier reason stays."""
        self.reason = self.reason or reason

    def note(self, number: int, _: FrameType | None) -> None:
        """Signal handler. The same signal once more, later, exits at once: somebody means it."""
        now = time.monotonic()
        first = self._first_seen.setdefault(number, now)
        if now - first > DELIVERY_SECONDS:
            os._exit(128 + number)
        self.reason = self.reason or signal.Signals(number).name


@contextmanager
def stop_on_signals(run_dir: Path | None = None) -> Iterator[StopRequest]:
    """Note SIGTERM, SIGINT and SIGUSR1 instead of dying from them, from the start-up on."""
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


def drop_stale_stop(run_dir: Path, *, since: float) -> None:
    """Remove a `STOP` file that an earlier attempt obeyed; one made while this one starts counts.

    Args:
        run_dir: the run.
        since: when this process began, Unix seconds.
    """
    path = run_dir / "STOP"
    if path.exists() and path.stat().st_mtime < since:
        path.unlink(missing_ok=True)


def stop_with_parent() -> None:
    """Under torchrun: ask this rank to stop when the launcher dies, however it dies (Linux).

    A killed torchrun would leave its ranks training, and a resumed run would join them.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG, linux/prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
