"""`sweep.svg`: a line a cell, accuracy with its interval; written by hand, so nothing is needed."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

ROW = 22
LEFT, PLOT, RIGHT = 430, 380, 250
TOP, BOTTOM = 46, 30
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
STYLE = "font: 12px sans-serif; fill: #222"


def as_svg(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The picture of the rows of `sweep.csv`, in their order."""
    height = TOP + ROW * len(rows) + BOTTOM
    width = LEFT + PLOT + RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'style="{STYLE}; background: white">',
        f'<text x="10" y="20" font-weight="bold">{escape(title)}: accuracy, 95 % interval</text>',
        *_axis(rows, height),
        *(_line(index, row, rows) for index, row in enumerate(rows)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _range(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The stretch of accuracies shown: that of the intervals, with some room."""
    lows = [row["accuracy_low"] for row in rows if row["accuracy_low"] is not None]
    highs = [row["accuracy_high"] for row in rows if row["accuracy_high"] is not None]
    if not lows:
        return 0.0, 1.0
    room = max(0.01, 0.05 * (max(highs) - min(lows)))
    return max(0.0, min(lows) - room), min(1.0, max(highs) + room)


def _x(value: float, rows: Sequence[Mapping[str, Any]]) -> float:
    low, high = _range(rows)
    return LEFT + PLOT * (value - low) / (high - low)


def _axis(rows: Sequence[Mapping[str, Any]], height: int) -> list[str]:
    low, high = _range(rows)
    parts = []
    for tick in TICKS:
        value = low + tick * (high - low)
        x = _x(value, rows)
        parts.append(
            f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{height - BOTTOM}" '
            f'stroke="#ddd"/><text x="{x:.1f}" y="{height - 10}" text-anchor="middle">'
            f"{value:.1%}</text>"
        )
    head = (("loss", 20), ("tokens/s", 75), ("GPU hours", 155))
    parts += [f'<text x="{LEFT + PLOT + x}" y="{TOP - 12}">{text}</text>' for text, x in head]
    return parts


def _line(index: int, row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    y = TOP + ROW * index + ROW // 2
    name = str(row["cell"])
    shown = name if len(name) <= 62 else f"{name[:52]}…{name[-9:]}"
    text = f'<text x="10" y="{y + 4}" font-size="11">{escape(shown)}</text>'
    return text + _mark(row, rows, y) + _numbers(row, y)


def _mark(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], y: int) -> str:
    if row["accuracy"] is None:
        return f'<text x="{LEFT + 6}" y="{y + 4}" fill="#a00">{escape(str(row["state"]))}</text>'
    colour = "#1f5fa8" if row["state"] == "finished" else "#999"
    x = _x(row["accuracy"], rows)
    dot = f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="{colour}"/>'
    if row["accuracy_low"] is None:
        return dot
    low, high = _x(row["accuracy_low"], rows), _x(row["accuracy_high"], rows)
    return (
        f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{colour}" '
        f'stroke-width="2"/>{dot}'
    )


def _numbers(row: Mapping[str, Any], y: int) -> str:
    columns = (
        ("train_loss", ".3f", 20),
        ("tokens_per_second", ",.0f", 75),
        ("gpu_hours", ".3g", 155),
    )
    return "".join(
        f'<text x="{LEFT + PLOT + x}" y="{y + 4}">{row[name]:{form}}</text>'
        for name, form, x in columns
        if row[name] is not None
    )
