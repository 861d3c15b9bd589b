"""`metrics.jsonl`: the record of a run. Append-only, one object a line, on disk at once.

Everything else (wandb, the console, the report) is a view of it. Readers take the last row of a
step: a resumed run repeats the steps after its checkpoint.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sft_dist.tracking.metrics import is_declared

FILE_NAME = "metrics.jsonl"


class MetricsRecord:
    """Appends rows to `run_dir/metrics.jsonl`."""

    def __init__(self, run_dir: Path, attempt: int) -> None:
        self._attempt = attempt
        self._evaluations = {
            _without_stamp(row) for row in read_rows(run_dir) if "eval/step" in row
        }
        path = run_dir / FILE_NAME
        torn = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
        self._file = path.open("a")
        if torn:  # the last attempt was killed while it wrote
            self._file.write("\n")

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row, with `time` (Unix, s) and `attempt` added.

        An evaluation that is there already, in the same words, is not written again: after a kill
        between writing and taking note of it, it is reported once more.

        Args:
            row: `step` or `eval/step`, and metrics by declared name.
        """
        for name in row:
            if name != "step" and not is_declared(name):
                raise KeyError(f"{name} is not declared in tracking/metrics.py")
        if "eval/step" in row:
            if _without_stamp(row) in self._evaluations:
                return
            self._evaluations.add(_without_stamp(row))
        line = {"time": round(time.time(), 3), "attempt": self._attempt, **row}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _without_stamp(row: Mapping[str, Any]) -> str:
    return json.dumps(
        {k: v for k, v in row.items() if k not in ("time", "attempt")}, sort_keys=True
    )


def read_rows(run_dir: Path) -> list[dict[str, Any]]:
    """All rows, in the order written; a line torn by a kill is passed over."""
    path = run_dir / FILE_NAME
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def last_by(rows: list[dict[str, Any]], axis: str) -> dict[int, dict[str, Any]]:
    """The last row of each value of `axis` (`step` or `eval/step`), in ascending order.

    An evaluation has a row for each prompt, and each names its metrics after its prompt: the last
    ones of a step are put together.
    """
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        if axis in row:
            before = found.get(row[axis], {}) if axis == "eval/step" else {}
            found[row[axis]] = {**before, **row}
    return dict(sorted(found.items()))
