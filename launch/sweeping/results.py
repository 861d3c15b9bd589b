"""`sweep.csv`: one row a cell, best accuracy first, with what each cost."""

import csv
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.sweeping.cells import Cell
from launch.sweeping.rung_watch import read_rows
from launch.sweeping.states import CellState

LAST_SHARE = 0.05
"""Of the steps: over these the final loss is averaged, as one batch alone is noise."""
Z_95 = 1.959964
MEASURES = (
    "accuracy", "accuracy_low", "accuracy_high", "num_problems", "eval_step", "train_loss",
    "step", "tokens_per_second", "gpu_hours",
)  # fmt: skip


def wilson_interval(accuracy: float, count: int) -> tuple[float, float]:
    """95 % interval of a rate of `count` independent answers.

    Source: Wilson 1927, the score interval; it stays in [0, 1] and is honest near both ends.
    """
    share = Z_95**2 / count
    centre = (accuracy + share / 2) / (1 + share)
    half = math.sqrt(accuracy * (1 - accuracy) * share + share**2 / 4) / (1 + share)
    return max(0.0, centre - half), min(1.0, centre + half)


def result_row(cell: Cell, state: CellState) -> dict[str, Any]:
    """What `sweep.csv` says of a cell; None where nothing is known yet."""
    rows = read_rows(cell.run_dir)
    measured = {**_accuracy(rows), **_training(rows), "gpu_hours": _hours(cell.run_dir, rows)}
    values = {axis: cell.flags.get(axis) for axis in cell.point}
    if "warmup_steps" in cell.flags:
        values["warmup_steps"] = cell.flags["warmup_steps"]
    return {"cell": cell.name, **values, "state": state.state,
            **{name: measured.get(name) for name in MEASURES},
            "reason": state.reason, "run_dir": str(cell.run_dir)}  # fmt: skip


def sorted_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Best accuracy first, then lowest loss; cells without either at the end, by name."""

    def key(row: Mapping[str, Any]) -> tuple[float, float, str]:
        accuracy, loss = row["accuracy"], row["train_loss"]
        return (
            math.inf if accuracy is None else -accuracy,
            math.inf if loss is None else loss,
            row["cell"],
        )

    return sorted(rows, key=key)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as text."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _shown(value) for name, value in row.items()})
    return buffer.getvalue()


def _shown(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _accuracy(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scored = {row["eval/step"]: row for row in rows if "eval/accuracy" in row}
    if not scored:
        return {}
    step = max(scored)
    accuracy, count = scored[step]["eval/accuracy"], scored[step].get("eval/num_problems")
    low, high = wilson_interval(accuracy, count) if count else (None, None)
    return {
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "num_problems": count,
        "eval_step": step,
    }


def _training(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    steps = {row["step"]: row for row in rows if "train/loss" in row}
    if not steps:
        return {}
    late = (1 - LAST_SHARE) * max(steps)
    last = [row["train/loss"] for step, row in steps.items() if step > late]
    speeds = [
        row["perf/tokens_per_second"] for row in steps.values() if "perf/tokens_per_second" in row
    ]
    return {
        "step": max(steps),
        "train_loss": statistics.fmean(last),
        "tokens_per_second": statistics.median(speeds) if speeds else None,
    }


def _hours(run_dir: Path, rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Hours of all ranks over all attempts, from start-up to the last row of each."""
    try:
        world_size = json.loads((run_dir / "environment.json").read_text())["world_size"]
    except (OSError, ValueError, KeyError):
        return None
    attempts: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        attempts.setdefault(row.get("attempt", 1), []).append(row)
    seconds = sum(_attempt_seconds(own) for own in attempts.values())
    return world_size * seconds / 3600 if rows else None


def _attempt_seconds(rows: Sequence[Mapping[str, Any]]) -> float:
    before = max((row.get("startup/total_seconds", 0.0) for row in rows), default=0.0)
    first = before or rows[0].get("perf/step_seconds", 0.0)
    times = [row["time"] for row in rows if "time" in row]
    return first + (max(times) - min(times) if times else 0.0)
