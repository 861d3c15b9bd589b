"""Stops a cell at a rung: writes the STOP file when the cell's record has got there.

    python launch/sweeping/rung_watch.py RUN_DIR RUNG METRIC   # beside a job; ends with its parent

Needs the standard library only, and no package: it runs by its path beside the trainer.
"""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

POLL_SECONDS = 2.0


def read_rows(run_dir: Path) -> list[dict[str, Any]]:
    """Rows of `metrics.jsonl`; a torn line is passed over."""
    path = run_dir / "metrics.jsonl"
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def epoch_of_step(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Epochs that one step is; None before the first logged step."""
    for row in rows:
        if row.get("step") and "train/epoch" in row:
            return float(row["train/epoch"]) / row["step"]
    return None


def has_reached(rows: Sequence[Mapping[str, Any]], rung: float, metric: str) -> bool:
    """Whether the metric is known at `rung` epochs or later."""
    per_step = epoch_of_step(rows)
    axis = "eval/step" if metric.startswith("eval/") else "step"
    if per_step is None:
        return False
    return any(metric in row and row.get(axis, 0) * per_step >= rung - 1e-9 for row in rows)


def watch_once(run_dir: Path, rung: float, metric: str) -> None:
    """Ask the run to stop if it is at the rung. Another STOP file (Slurm's, a user's) stays."""
    stop = run_dir / "STOP"
    if not stop.exists() and has_reached(read_rows(run_dir), rung, metric):
        stop.write_text(f"sweep: rung {rung:g}\n")


def main() -> None:
    """Watch until the process that started this one is gone."""
    run_dir, rung, metric = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    parent = os.getppid()
    while os.getppid() == parent:
        watch_once(run_dir, rung, metric)
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
