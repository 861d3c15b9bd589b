"""Names in a run directory, and readers that take what is whole and count what is not.

The names are those of the rooms that write them; a test keeps them equal.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

METRICS = "metrics.jsonl"
CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
STATUS = "status.json"
LOCK = ".lock"
LOGS = "logs"
REPORT = "report.html"
EVALUATIONS = "evaluations"
REQUEST = "request.json"
COMPLETIONS = "completions.jsonl"
GRADES = "grades.jsonl"
SUMMARY = "summary.json"
FAILURE = "failure.json"
HEARTBEAT = "heartbeat.json"
GENERATION = "generation.json"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class JsonLines:
    """The objects of a JSON-lines file, and the numbers (from 1) of the lines that are none."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)


def read_json_lines(path: Path) -> JsonLines:
    """Read a JSON-lines file; one that is missing has no rows. Never raises for its content."""
    try:
        text = path.read_bytes()
    except OSError:
        return JsonLines()
    found = JsonLines()
    for number, line in enumerate(text.split(b"\n"), start=1):
        if not line.strip():
            continue
        row = _object(line)
        if row is None:
            found.damaged.append(number)
        else:
            found.rows.append(row)
    return found


def read_settings(run_dir: Path) -> dict[str, Any]:
    """`config.yaml` as flag names and values; empty where there is none or it cannot be read."""
    try:
        content = yaml.safe_load((run_dir / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def number(value: Any) -> float | None:
    """`value` as a finite number; None for anything else (a row of another version, a NaN)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def whole(value: Any) -> int | None:
    """`value` as a whole number; None for anything else."""
    found = number(value)
    return int(found) if found is not None and found == int(found) else None


def text(value: Any) -> str | None:
    """`value` where it is a string, else None."""
    return value if isinstance(value, str) else None


def modified(path: Path) -> float | None:
    """When a file was last written (Unix, s); None where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def tail_lines(path: Path, *, max_bytes: int) -> Iterator[str]:
    """The lines in the last `max_bytes` of a file, the first of them whole; nothing if missing."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - max_bytes))
            if size > max_bytes:
                file.readline()
            content = file.read()
    except OSError:
        return
    yield from content.decode("utf-8", errors="replace").splitlines()


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:  # torn by a kill, or overwritten
        return None
    except RecursionError:
        return None
    return row if isinstance(row, dict) else None
