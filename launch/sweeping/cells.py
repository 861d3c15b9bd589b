"""Cells: a point of the axes as the flags of a run, with a name that is always the same.

A name is made of the point's values and a hash of all flags: the same file gives the same names,
and a changed flag gives another directory, so no cell overwrites another.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.sweeping.description import Sweep
from launch.sweeping.rules import apply_rules
from launch.sweeping.samplers import Point, draws, grid
from sft_dist.arguments import ArgumentReader
from sft_dist.config import GROUPS, TrainConfig, from_flat
from sft_dist.errors import ConfigError

OURS = ("output_dir", "resume_from_checkpoint", "wandb_group", "wandb_run_name")
"""Flags that the sweep sets itself."""
MAX_NAME = 100
"""Characters of the readable part of a name."""
MAX_REPEATS = 1000
"""Draws without a new cell after which a space of few values counts as exhausted."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    name: str
    point: Point
    """The values of the axes, as the sweep file spells them."""
    flags: dict[str, Any]
    """All flags given, with values of the right types."""
    run_dir: Path

    def arguments(self, group: str) -> list[str]:
        """The command line of `sft_dist.train`; the same for a first start and for a resume."""
        ours = {"wandb_group": group, "wandb_run_name": self.name, "output_dir": str(self.run_dir),
                "resume_from_checkpoint": "latest"}  # fmt: skip
        return [f"--{name}={_text(value)}" for name, value in {**self.flags, **ours}.items()]


class CellMaker:
    """Makes cells of points; gathers the faults of their flags, each once."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._reader = ArgumentReader("launch.sweep", "", GROUPS)
        self._seen: dict[tuple[str, str], dict[str, Any]] = {}
        self.faults: list[str] = []
        self._common = self._typed(sweep.flags, "flags")

    def cell(self, point: Point) -> Cell:
        """The cell of a point; a faulty flag is noted and left out."""
        typed = {**self._common, **self._typed(point, "axes")}
        known = {name: value for name, value in typed.items() if value is not None}
        flags = apply_rules(self._sweep.rules, known)
        name = cell_name({axis: flags.get(axis) for axis in point}, flags)
        return Cell(name, dict(point), flags, self._sweep.directory / "cells" / name)

    def _typed(self, values: dict[str, Any], place: str) -> dict[str, Any]:
        typed: dict[str, Any] = {}
        for name, value in values.items():
            key = (name, _text(value))
            if key not in self._seen:
                self._seen[key] = self._read(name, value, place)
            typed.update(self._seen[key])
        return typed

    def _read(self, name: str, value: Any, place: str) -> dict[str, Any]:
        if name in OURS:
            self.faults.append(f"{place}: {name}: the sweep sets it for each cell; remove it")
            return {}
        if value is None:
            return {name: None}
        before = len(self._reader.faults)
        read = self._reader.read([f"--{name}={_text(value)}"])
        self.faults += [f"{place}: {fault}" for fault in self._reader.faults[before:]]
        return read


Check = Callable[[TrainConfig], list[str]]


def planned_cells(sweep: Sweep, checks: Sequence[Check]) -> list[Cell]:
    """The cells of a grid or of random draws, in their order, each once.

    Raises:
        ConfigError: with the faults of all flags of all cells.
    """
    maker = CellMaker(sweep)
    points: Iterable[Point]
    points = grid(sweep.axes) if sweep.sampler == "grid" else draws(sweep.axes, sweep.seed)
    return checked(maker, distinct(maker, points, sweep.num_cells), checks)


def distinct(maker: CellMaker, points: Iterable[Point], limit: int | None) -> list[Cell]:
    """Up to `limit` cells with flags that differ; stops when draws only repeat themselves."""
    cells: dict[str, Cell] = {}
    repeats = 0
    for point in points:
        if limit is not None and (len(cells) >= limit or repeats > MAX_REPEATS):
            break
        cell = maker.cell(point)
        repeats = repeats + 1 if cell.name in cells else 0
        cells.setdefault(cell.name, cell)
    return list(cells.values())


def checked(maker: CellMaker, cells: Sequence[Cell], checks: Sequence[Check]) -> list[Cell]:
    """The cells, when every one of them can be run.

    Raises:
        ConfigError: with all faults; one of several cells is told once.
    """
    faults: dict[str, list[str]] = {fault: [] for fault in maker.faults}
    for cell in [] if faults else cells:
        given = {**cell.flags, "output_dir": str(cell.run_dir), "resume_from_checkpoint": "latest"}
        config = from_flat(given)
        for fault in itertools.chain.from_iterable(check(config) for check in checks):
            faults.setdefault(fault, []).append(cell.name)
    if faults:
        raise ConfigError([fault + _who(names) for fault, names in faults.items()])
    return list(cells)


def _who(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f" (cell {names[0]}{more})"


def cell_name(values: dict[str, Any], flags: dict[str, Any]) -> str:
    """`learning_rate-2e-05_seed-1-3f2a9c1b`: what differs, and the hash of everything."""
    text = json.dumps(flags, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    readable = "_".join(f"{axis}-{_readable(value)}" for axis, value in values.items())
    return f"{readable[:MAX_NAME]}-{digest}"


def _readable(value: Any) -> str:
    text = Path(value).name if isinstance(value, str) else _text(value)
    return re.sub(r"[^\w.+-]", "-", text)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
