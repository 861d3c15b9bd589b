"""What one call of the command has to run: the cells there are, and those that need a run."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from launch.sweeping import halving as rungs
from launch.sweeping.cells import Cell, CellMaker, Check, checked, distinct, planned_cells
from launch.sweeping.description import Sweep
from launch.sweeping.results import result_row
from launch.sweeping.samplers import Point, draws, propose
from launch.sweeping.states import RUNNABLE, CellState, cell_state
from sft_dist.durable import write_atomically


@dataclass(frozen=True, kw_only=True)
class Call:
    """The sweep as one call finds it."""

    cells: list[Cell]
    states: dict[str, CellState]
    todo: list[Cell]
    """The cells to run, in their order."""
    stop: dict[str, Any] | None = None
    """Where they stop, see `halving.stop_settings`; None: at the end of their schedule."""
    note: str = ""


def next_call(sweep: Sweep, checks: Sequence[Check], queued: set[str]) -> Call:
    """Look at every cell and decide which to run.

    Raises:
        ConfigError: with the faults of all cells.
    """

    def states_of(cells: Sequence[Cell]) -> dict[str, CellState]:
        return {cell.name: cell_state(cell, queued) for cell in cells}

    if sweep.sampler == "optuna":
        cells = _optuna_cells(sweep, checks, states_of)
    else:
        cells = planned_cells(sweep, checks)
    states = states_of(cells)
    if sweep.halving is None:
        todo = [c for c in cells if states[c.name].state in (*RUNNABLE, "paused")]
        return Call(cells=cells, states=states, todo=todo)
    number, alive = rungs.stage(cells, states, sweep.halving)
    names = {cell.name for cell in alive}
    for cell in cells:
        if cell.name not in names and states[cell.name].state == "paused":
            states[cell.name] = CellState("dropped", states[cell.name].reason)
    stop = rungs.stop_settings(sweep.halving, number)
    todo = [c for c in alive if _wants_stage(c, states[c.name], stop)]
    note = rungs.describe(sweep.halving, number) + f", {len(alive)} of {len(cells)} cells in it"
    return Call(cells=cells, states=states, todo=todo, stop=stop, note=note)


def _wants_stage(cell: Cell, state: CellState, stop: dict[str, Any] | None) -> bool:
    """Whether a cell of the stage has not got to its end yet."""
    if state.state not in (*RUNNABLE, "paused") or state.diverged:
        return False
    return stop is None or rungs.rung_score(cell.run_dir, stop["rung"], stop["metric"]) is None


def _optuna_cells(
    sweep: Sweep,
    checks: Sequence[Check],
    states_of: Callable[[Sequence[Cell]], dict[str, CellState]],
) -> list[Cell]:
    """The cells proposed so far, and new ones while fewer than `cells_per_call` are open."""
    path = sweep.directory / "points.json"
    points: list[Point] = json.loads(path.read_text()) if path.exists() else []
    maker = CellMaker(sweep)
    cells = checked(maker, distinct(maker, points, None), checks)
    states = states_of(cells)
    scores = {c.name: _objective(result_row(c, states[c.name])) for c in cells}
    tried = [
        (c.point, scores[c.name] if states[c.name].state == "finished" else None)
        for c in cells
        if not states[c.name].diverged
    ]
    num_open = sum(1 for _, score in tried if score is None)
    wanted = min(sweep.cells_per_call - num_open, (sweep.num_cells or 0) - len(cells))
    if wanted <= 0:
        return cells
    # Behind the proposals random draws, should Optuna propose what has been run already.
    proposed = [*points, *propose(sweep, tried, wanted)]
    found = distinct(maker, [*proposed], None)
    if len(found) < len(cells) + wanted:
        found = distinct(maker, _then(proposed, draws(sweep.axes, sweep.seed)), len(cells) + wanted)
    return checked(maker, found, checks)


def _then(first: Sequence[Point], rest: Any) -> Any:
    yield from first
    yield from rest


def remember_points(sweep: Sweep, cells: Sequence[Cell]) -> None:
    """Keep what Optuna proposed: the next call must find the same cells."""
    if sweep.sampler == "optuna":
        text = json.dumps([cell.point for cell in cells], indent=1)
        write_atomically(sweep.directory / "points.json", text)


def _objective(row: dict[str, Any]) -> float | None:
    """Higher is better: the accuracy; without evaluations, minus the loss."""
    if row["accuracy"] is not None:
        return float(row["accuracy"])
    return None if row["train_loss"] is None else -float(row["train_loss"])
