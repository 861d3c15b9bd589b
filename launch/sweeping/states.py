"""What became of each cell, from its own status.json and from what is still in the queue."""

import fcntl
import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.sweeping.cells import Cell

RUNNABLE = ("absent", "requeue", "failed", "killed")
"""States of a cell that a call runs, again or for the first time."""
STOPPED_BY_SWEEP = "sweep: "
"""How the text of a STOP file begins that the sweep wrote."""


@dataclass(frozen=True)
class CellState:
    """finished | requeue | failed | absent, and those that the sweep tells apart.

    active: in the queue or running; killed: its status says running, but nobody runs it; paused:
    stopped by the sweep at a rung; dropped: paused for good.
    """

    state: str
    reason: str = ""

    @property
    def diverged(self) -> bool:
        """Whether it failed in a way that the same flags will fail again."""
        return self.state == "failed" and self.reason.startswith("NonFiniteError")


def cell_state(cell: Cell, queued: Collection[str]) -> CellState:
    """The state of one cell.

    Args:
        cell: of this sweep.
        queued: names of the cells that Slurm has not finished with.
    """
    status = read_status(cell.run_dir)
    state, reason = str(status.get("state", "absent")), str(status.get("reason", ""))
    if cell.name in queued or _is_locked(cell.run_dir):
        return CellState("active", reason)
    if state == "running":
        return CellState("killed", "its status says running, but nothing runs it")
    if state == "requeue" and STOPPED_BY_SWEEP in reason:
        return CellState("paused", reason)
    return CellState(state, reason)


def read_status(run_dir: Path) -> dict[str, Any]:
    """`status.json` of a run; empty when there is none that can be read."""
    try:
        loaded = json.loads((run_dir / "status.json").read_text())
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _is_locked(run_dir: Path) -> bool:
    """Whether a trainer holds the run directory (on this host, or where locks are shared)."""
    path = run_dir / ".lock"
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def is_number(value: Any) -> bool:
    """Whether a metric is there and finite."""
    return isinstance(value, int | float) and math.isfinite(value)
