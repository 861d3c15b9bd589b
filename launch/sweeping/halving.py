"""Early stopping of hopeless cells: successive halving at given epochs.

A cell that is compared is stopped by a STOP file and resumed later, so the ones that survive have
the curve of the whole schedule: `--max_steps` would end the schedule at each rung.

Source: Jamieson & Talwalkar 2016 (arXiv:1502.07943). Here every cell must have reached a rung
before any goes on, so what survives does not depend on who was first.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.sweeping.cells import Cell
from launch.sweeping.description import Halving
from launch.sweeping.rung_watch import epoch_of_step, read_rows
from launch.sweeping.states import CellState, is_number

LOSS_WINDOW = 0.1
"""Share of the rung's epochs, just before it, over which train/loss is averaged."""


def rung_score(run_dir: Path, rung: float, metric: str) -> float | None:
    """How good a cell was at a rung, higher is better; None before it got there."""
    rows = read_rows(run_dir)
    if metric == "train/loss":
        return _loss_score(rows, rung)
    per_step = epoch_of_step(rows)
    if per_step is None:
        return None
    scores = {row["eval/step"]: row[metric] for row in rows if metric in row}
    reached = sorted(step for step in scores if step * per_step >= rung - 1e-9)
    return float(scores[reached[0]]) if reached else None


def _loss_score(rows: Sequence[Mapping[str, Any]], rung: float) -> float | None:
    last = {row["step"]: row for row in rows if "train/loss" in row}
    epochs = {step: row["train/epoch"] for step, row in last.items()}
    if not epochs or max(epochs.values()) < rung - 1e-9:
        return None
    window = [
        last[step]["train/loss"]
        for step, epoch in epochs.items()
        if rung * (1 - LOSS_WINDOW) <= epoch <= rung + 1e-9
    ] or [last[min(s for s, e in epochs.items() if e >= rung - 1e-9)]["train/loss"]]
    return -sum(window) / len(window)


def stage(
    cells: Sequence[Cell], states: Mapping[str, CellState], halving: Halving
) -> tuple[int, list[Cell]]:
    """(number of the stage, the cells still in it); the stage after the last rung runs to the end.

    A stage is over when every cell in it has a score; one that diverged has the worst.
    """
    alive = list(cells)
    for number, rung in enumerate(halving.rungs):
        scores: dict[str, float] = {}
        for cell in alive:
            score = rung_score(cell.run_dir, rung, halving.metric)
            if score is None or not is_number(score):
                if states[cell.name].diverged:
                    scores[cell.name] = -math.inf
                    continue
                return number, alive
            scores[cell.name] = score
        best = sorted(alive, key=lambda cell: (-scores[cell.name], cell.name))
        kept = {cell.name for cell in best[: math.ceil(halving.keep * len(alive))]}
        alive = [c for c in alive if c.name in kept and not states[c.name].diverged]
    return len(halving.rungs), alive


def describe(halving: Halving, number: int) -> str:
    """A stage in words."""
    if number < len(halving.rungs):
        return f"stage {number + 1}: to epoch {halving.rungs[number]:g}"
    return f"stage {number + 1}: to the end"


def stop_settings(halving: Halving, number: int) -> dict[str, Any] | None:
    """What `rung_watch.py` is told about a stage; None when its cells run to the end."""
    if number >= len(halving.rungs):
        return None
    return {"rung": halving.rungs[number], "metric": halving.metric}
