"""The table at the end of a run: what it came to, from its own record."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from sft_dist.tracking.console import change_text, interval_text
from sft_dist.tracking.record import last_by

HEAD = ("step", "loss", "accuracy", "since step 0")
MOST_LINES = 16


def closing_table(rows: list[dict[str, Any]]) -> str:
    """A line for each evaluation of the training prompt, the first step and the last.

    Of more than `MOST_LINES` the first, the best and the last ones; the report has them all.

    Args:
        rows: of `metrics.jsonl`, those of earlier attempts too.
    """
    steps = last_by(rows, "step")
    losses = {step: row["train/loss"] for step, row in steps.items() if "train/loss" in row}
    scored = last_by(rows, "eval/step")
    ends = {min(losses), max(losses)} if losses else set()
    lines = [HEAD]
    for step in _told(scored, ends):
        lines.append((str(step), _loss(losses, step), *_accuracy(scored.get(step, {}))))
    table = _aligned(lines)
    rates = [rate for row in steps.values() if (rate := row.get("perf/tokens_per_second"))]
    return f"{table}\n{max(steps)} steps, median {median(rates):,.0f} tok/s" if rates else table


def _told(scored: Mapping[int, Mapping[str, Any]], ends: set[int]) -> list[int]:
    """The steps of the lines: all, or the first, the best and the last of many."""
    steps = sorted({*scored, *ends})
    if len(steps) <= MOST_LINES:
        return steps
    best = max(scored, key=lambda step: scored[step].get("eval/accuracy", -1.0))
    return sorted({steps[0], best, *steps[2 - MOST_LINES :]})


def _loss(losses: Mapping[int, float], step: int) -> str:
    """Of that step, or the one logged last before it, which is named then."""
    logged = max((number for number in losses if number <= step), default=None)
    if logged is None:
        return ""
    return f"{losses[logged]:.4f}" + ("" if logged == step else f" at {logged}")


def _accuracy(row: Mapping[str, Any]) -> tuple[str, str]:
    """Accuracy with its interval, and the comparison with step 0 where there is one."""
    values = {name.removeprefix("eval/"): value for name, value in row.items()}
    if "accuracy" not in values:
        return "", ""
    compared = values["step"] and "vs_base_delta" in values
    found = f"{values['accuracy']:6.1%} {interval_text(values)}"
    return found, change_text(values) if compared else ""


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; step and loss to the right, the others to the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number < 2 else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
