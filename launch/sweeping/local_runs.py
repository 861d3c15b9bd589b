"""Cells on this machine, one after another."""

import itertools
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.sweeping.cells import Cell
from launch.sweeping.description import Sweep
from launch.sweeping.rung_watch import watch_once
from launch.sweeping.states import STOPPED_BY_SWEEP, read_status
from sft_dist.runtime.run_directory import write_status

ROOT = Path(__file__).parents[2]
POLL_SECONDS = 0.5
ERROR, FAULT = re.compile(r"(rank \d+: )?error: "), re.compile(r" +\d+\. ")


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
        path = logs / f"{cell.name}.log"
        with path.open("a") as log:
            begun = log.tell()
            process = subprocess.Popen(command_of(sweep, cell), stdout=log, stderr=log)
            try:
                _wait(process, cell.run_dir, stop)
            except KeyboardInterrupt:  # the terminal sent it to the trainer as well: it saves
                print("sweep: interrupted; waiting for the cell to save", flush=True)
                process.wait()
                return False
        if process.returncode != 0:
            _tell_failure(cell, path, begun)
    return True


def _tell_failure(cell: Cell, log: Path, begun: int) -> None:
    """Say why a cell failed; one that never came to write its status is given one.

    torchrun ends with 1 also when a signal made the ranks save and leave: that is no failure.
    """
    status = read_status(cell.run_dir)
    if status.get("state") in ("finished", "requeue"):
        return
    reason = last_error(log.read_bytes()[begun:].decode(errors="replace"))
    if not status:
        write_status(cell.run_dir, "failed", reason)
    print(f"sweep:   failed: {reason}\nsweep:   its output: {log}", flush=True)


def last_error(output: str) -> str:
    """What a trainer's output says of its failure: its own `error:` and its faults, or the end."""
    lines = output.splitlines()
    for number, line in enumerate(lines):
        if ERROR.match(line):
            faults = itertools.takewhile(FAULT.match, lines[number + 1 :])
            return " ".join([ERROR.sub("", line, count=1), *map(str.strip, faults)])
    return lines[-1].strip() if lines else "it said nothing"


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
