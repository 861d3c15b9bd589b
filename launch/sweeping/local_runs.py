"""Cells on this machine, one after another."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.sweeping.cells import Cell
from launch.sweeping.description import Sweep
from launch.sweeping.rung_watch import watch_once
from launch.sweeping.states import STOPPED_BY_SWEEP

ROOT = Path(__file__).parents[2]
POLL_SECONDS = 0.5


def command_of(sweep: Sweep, cell: Cell) -> list[str]:
    """The command line that runs a cell here."""
    start = sweep.command or [str(ROOT / "launch" / "train_single_node.sh")]
    return [*start, *cell.arguments(sweep.name)]


def run_cells(sweep: Sweep, cells: Sequence[Cell], stop: dict[str, Any] | None) -> bool:
    """Run the cells in their order; False when the user interrupted. Output goes to logs/."""
    logs = sweep.directory / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    for number, cell in enumerate(cells, 1):
        print(f"sweep: {number} of {len(cells)}: {cell.name}", flush=True)
        cell.run_dir.mkdir(parents=True, exist_ok=True)
        _forget_last_attempt(cell.run_dir)
        with (logs / f"{cell.name}.log").open("a") as log:
            process = subprocess.Popen(command_of(sweep, cell), stdout=log, stderr=log)
            try:
                _wait(process, cell.run_dir, stop)
            except KeyboardInterrupt:  # the terminal sent it to the trainer as well: it saves
                print("sweep: interrupted; waiting for the cell to save", flush=True)
                process.wait()
                return False
    return True


def _wait(process: subprocess.Popen[bytes], run_dir: Path, stop: dict[str, Any] | None) -> None:
    while process.poll() is None:
        if stop is not None:
            watch_once(run_dir, stop["rung"], stop["metric"])
        time.sleep(POLL_SECONDS)


def _forget_last_attempt(run_dir: Path) -> None:
    """What an earlier attempt said must not count now; a user's STOP file is not ours to remove."""
    (run_dir / "status.json").unlink(missing_ok=True)
    stop = run_dir / "STOP"
    if stop.exists() and stop.read_text().startswith(STOPPED_BY_SWEEP):
        stop.unlink()
