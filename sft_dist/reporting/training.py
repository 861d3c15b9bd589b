"""`metrics.jsonl` -> curves, attempts, rate and time left. Pure but for the reading."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sft_dist.evaluation.statistics import mean
from sft_dist.reporting.run_files import METRICS, number, read_json_lines, whole

MAX_POINTS = 1600
"""Rows a curve is drawn from; a screen has fewer columns."""

SPIKES = ("train/loss", "train/grad_norm_preclip")
"""Thinning keeps the lowest and highest of these in each stretch: a spike is what one looks for."""

RECENT_ROWS = 50
"""Logged rows that the rate is taken from."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Attempt:
    """One start of the run: its rows' first and last step and time (Unix, s)."""

    number: int
    first_step: int
    last_step: int
    began: float
    ended: float


@dataclass(frozen=True)
class Training:
    """What the record says of training.

    `rows` holds the last row of each step, ascending; `evaluations` the same by `eval/step`;
    `step` is where the latest attempt stands, which a resume may have put before the last row.
    """

    rows: list[Row] = field(default_factory=list)
    evaluations: dict[int, Row] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    step: int = 0
    last_time: float | None = None
    seconds_per_step: float | None = None
    tokens_per_second: float | None = None
    total_steps: int | None = None
    damaged: list[int] = field(default_factory=list)

    @property
    def seconds_left(self) -> float | None:
        """At the present rate; None while rate or total are unknown."""
        if self.total_steps is None or self.seconds_per_step is None:
            return None
        return max(0, self.total_steps - self.step) * self.seconds_per_step


def read_training(run_dir: Path, settings: Row) -> Training:
    """Read the record; `settings` (config.yaml) give the number of steps planned."""
    lines = read_json_lines(run_dir / METRICS)
    steps = [row for row in lines.rows if whole(row.get("step")) is not None]
    evaluations = [row for row in lines.rows if whole(row.get("eval/step")) is not None]
    times = [row["time"] for row in lines.rows if number(row.get("time")) is not None]
    latest = _latest_attempt(steps)
    speeds = [number(row.get("perf/tokens_per_second")) for row in latest[-RECENT_ROWS:]]
    return Training(
        rows=_last_by(steps, "step"),
        evaluations={row["eval/step"]: row for row in _last_by(evaluations, "eval/step")},
        attempts=_attempts(steps),
        step=latest[-1]["step"] if latest else 0,
        last_time=times[-1] if times else None,
        seconds_per_step=_seconds_per_step(latest),
        tokens_per_second=mean([speed for speed in speeds if speed is not None]),
        total_steps=_total_steps(steps, settings),
        damaged=lines.damaged,
    )


def curve_columns(rows: Sequence[Row]) -> dict[str, list[float | None]]:
    """Columns by metric name, `step` and `time` among them; thinned to `MAX_POINTS` rows."""
    kept = _thinned(rows)
    names = sorted(
        {name for row in kept for name, value in row.items() if number(value) is not None}
    )
    columns = {name: [_short(number(row.get(name))) for row in kept] for name in names}
    for exact in ("step", "time"):
        columns[exact] = [number(row.get(exact)) for row in kept]
    return columns


def _latest_attempt(steps: Sequence[Row]) -> list[Row]:
    if not steps:
        return []
    newest = steps[-1].get("attempt")
    return [row for row in steps if row.get("attempt") == newest]


def _attempts(steps: Iterable[Row]) -> list[Attempt]:
    by_number: dict[int, list[Row]] = {}
    for row in steps:
        if number(row.get("time")) is not None:
            by_number.setdefault(whole(row.get("attempt")) or 1, []).append(row)
    return [
        Attempt(
            number=n,
            first_step=rows[0]["step"],
            last_step=rows[-1]["step"],
            # A row is written when its step is over.
            began=rows[0]["time"] - (number(rows[0].get("startup/total_seconds")) or 0.0),
            ended=rows[-1]["time"],
        )
        for n, rows in sorted(by_number.items())
    ]


def _seconds_per_step(rows: Sequence[Row]) -> float | None:
    recent = [row for row in rows if number(row.get("time")) is not None][-RECENT_ROWS:]
    if len(recent) > 1 and recent[-1]["step"] > recent[0]["step"]:
        seconds = recent[-1]["time"] - recent[0]["time"]
        return max(0.0, seconds) / (recent[-1]["step"] - recent[0]["step"])
    return number(recent[-1].get("perf/step_seconds")) if recent else None


def _total_steps(steps: Sequence[Row], settings: Row) -> int | None:
    """Steps an epoch from a row's fraction of an epoch, times the epochs asked for."""
    max_steps, num_epochs = whole(settings.get("max_steps")), whole(settings.get("num_epochs"))
    for row in reversed(steps):
        epoch = number(row.get("train/epoch"))
        if epoch and num_epochs:
            total = round(row["step"] / epoch) * num_epochs
            return min(total, max_steps) if max_steps else total
    return max_steps


def _last_by(rows: Iterable[Row], axis: str) -> list[Row]:
    found = {row[axis]: row for row in rows}
    return [found[value] for value in sorted(found)]


def _thinned(rows: Sequence[Row]) -> list[Row]:
    if len(rows) <= MAX_POINTS:
        return list(rows)
    per_stretch = 2 * len(SPIKES)
    size = -(-len(rows) // (MAX_POINTS // per_stretch))
    kept = {0, len(rows) - 1}
    for start in range(0, len(rows), size):
        stretch = range(start, min(start + size, len(rows)))
        for name in SPIKES:
            values = [(number(rows[i].get(name)) or 0.0, i) for i in stretch]
            kept |= {min(values)[1], max(values)[1]}
    return [rows[i] for i in sorted(kept)]


def _short(value: float | None) -> float | None:
    """Six digits are more than a screen shows."""
    return value if value is None or isinstance(value, int) else float(f"{value:.6g}")
