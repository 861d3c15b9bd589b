"""One grading subprocess as its pool sees it: busy with one task, with a deadline."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_START_SECONDS = 60.0  # a loaded machine may take this long to start an interpreter
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class WorkerProcess:
    """A subprocess that writes `ready`, then answers one line of JSON with another.

    Attributes:
        task: The index of the task it is busy with, or None.
    """

    def __init__(self, command: Sequence[str]) -> None:
        path = os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input = self.process.stdin
        self.output = self.process.stdout
        self.task: int | None = None
        self._ready = False
        self._deadline = time.monotonic() + _START_SECONDS
        self._buffer = b""

    def idle(self) -> bool:
        """True if it can take a task."""
        return self._ready and self.task is None

    def seconds_left(self) -> float:
        """Return the time until the deadline of its task, or of its start."""
        return float("inf") if self.idle() else self._deadline - time.monotonic()

    def send(self, index: int, task: dict[str, Any], *, timeout_seconds: float) -> None:
        """Give it a task."""
        self.task = index
        self._deadline = time.monotonic() + timeout_seconds
        with contextlib.suppress(BrokenPipeError):  # a dead worker is seen at its output
            self._input.write(json.dumps(task).encode() + b"\n")
            self._input.flush()

    def read_answers(self) -> list[tuple[int, dict[str, Any]]] | None:
        """Return the finished tasks with their answers; None if it is dead or babbles."""
        data = os.read(self.output.fileno(), 1 << 16)
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        answers = []
        for line in lines:
            if not self._ready:
                self._ready = True
            elif self.task is not None:
                try:
                    answers.append((self.task, json.loads(line)))
                except ValueError:  # it no longer speaks the protocol
                    return None
                self.task = None
        return answers

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        for stream in (self._input, self.output):
            with contextlib.suppress(OSError):
                stream.close()
