"""Named points of a training run; at any one of them the process, or the whole node, can be killed.

A point is a file operation below the run directory or a place in the recipe. Its name says what was
being done and holds nothing that differs from one start of the run to the next, so a point that one
run has recorded can be met again in another. Every process of a run appends the points it comes by
to one log; `Points` reads from the environment which log, and where to die.
"""

import json
import os
import re
import signal
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from sft_dist.tracking.record import FILE_NAME
from tests.faults.operations import Operations

VARIABLE = "SOAK"
"""In the environment of every process of a run: JSON, the arguments of `Points`."""

VARYING = (
    (re.compile(r"[0-9a-f]{32}"), "*"),  # of temporary names
    (re.compile(r"(attempt|owner)-\d+"), r"\1-*"),
)


@dataclass(frozen=True)
class Kill:
    """Where to die, and with whom."""

    process: str
    """`rank 0`, `rank 1`, `worker`."""
    point: str
    node: bool
    """All processes of the run at once; else this one, and the others find out."""


class Points(Operations):
    """Replaces the functions that change files, and names what else is told to it."""

    def __init__(self, process, *, run_dir, log, leader, kill=None):
        """`leader` is the process that all others of the run descend from; None kills nothing."""
        super().__init__(run_dir)
        self.process, self.leader = process, leader
        self.kill = Kill(**kill) if kill else None
        self.phase = "start-up"  # of the thread that trains
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._met = Counter()
        self._lock = threading.RLock()
        self._dying = False

    @classmethod
    def from_environment(cls, process):
        return cls(process, **json.loads(os.environ[VARIABLE]))

    def at(self, what):
        """A place in the recipe, on whichever thread comes there."""
        self.reached(what)

    def reached(self, name, half=None):
        name = f"{self._doing()}: {name}"
        for pattern, text in VARYING:
            name = pattern.sub(text, name)
        with self._lock:  # held to the end by who dies: no other thread passes a point meanwhile
            if self._dying:
                return
            self._met[name] += 1
            name += f" #{self._met[name]}" if self._met[name] > 1 else ""
            self._tell(point=name)
            kill = self.kill
            if kill is not None and (kill.process, kill.point) == (self.process, name):
                self._dying = True
                if half is not None:
                    half()
                self._tell(killed=name)
                self._die(kill.node)

    def counts(self, path, number):
        """Every row of the record; the log, that nobody reads back, never."""
        path = Path(path)
        return path.name == FILE_NAME or (path.suffix != ".log" and super().counts(path, number))

    def _doing(self):
        thread = threading.current_thread()
        if thread is threading.main_thread() or self.process == "worker":
            return self.phase
        step = re.fullmatch(r"save-(\d+)", thread.name)
        return f"save {step[1]}" if step else re.sub(r"Thread-\d+ |\W*\d+$", "", thread.name)

    def _tell(self, **what):
        os.write(self._log, (json.dumps({"process": self.process, **what}) + "\n").encode())

    def _die(self, node):
        if node:
            leader = psutil.Process(self.leader)
            for process in (leader, *leader.children(recursive=True)):
                if process.pid != os.getpid():
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
        os.kill(os.getpid(), signal.SIGKILL)


def environment_of(run_dir, log, *, leader, kill=None):
    """What `Points.from_environment` needs."""
    found = asdict(kill) if kill else None
    content = {"run_dir": str(run_dir), "log": str(log), "leader": leader, "kill": found}
    return {VARIABLE: json.dumps(content)}


def read_log(path):
    """What the processes of one attempt have told, in order."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
