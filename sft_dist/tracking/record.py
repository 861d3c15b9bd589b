"""`metrics.jsonl`: the record of a run. Append-only, one object a line, on disk at once.

Everything else (wandb, the console, the report) is a view of it. Readers take the last row of a
step: a resumed run repeats the steps after its checkpoint.
"""

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sft_dist.tracking.metrics import is_declared

logger = logging.getLogger(__name__)

FILE_NAME = "metrics.jsonl"


class MetricsRecord:
    """Appends rows to `run_dir/metrics.jsonl`; those that a full disk refuses wait in memory."""

    def __init__(self, run_dir: Path, attempt: int) -> None:
        self._attempt = attempt
        self._evaluations = {_by_content(row) for row in read_evaluation_rows(run_dir)}
        self._path = run_dir / FILE_NAME
        torn = _last_byte(self._path) not in (b"", b"\n")
        # Unbuffered: a write says how much of it the disk took, and the rest is tried again.
        self._file = self._path.open("ab", buffering=0)
        self._unwritten = b"\n" if torn else b""  # the last attempt was killed while it wrote
        self._fault: OSError | None = None

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row, with `time` (Unix, s) and `attempt` added.

        An evaluation that is there already, with the same figures, is not written again: after a
        kill between writing and taking note of it, it is reported once more. An error of the disk
        does not come out of here: it is warned of once, and the row is written with a later one.

        Args:
            row: `step` or `eval/step`, and metrics by declared name.
        """
        for name in row:
            if name != "step" and not is_declared(name):
                raise KeyError(f"{name} is not declared in tracking/metrics.py")
        if "eval/step" in row:
            if _by_content(row) in self._evaluations:
                return
            self._evaluations.add(_by_content(row))
        line = {"time": round(time.time(), 3), "attempt": self._attempt, **row}
        self._unwritten += (json.dumps(line, allow_nan=False) + "\n").encode()
        self._flush()

    def close(self) -> None:
        """Close the file, after a last try to write what is left."""
        self._flush()
        if self._unwritten:
            logger.error(
                "%s: the last %d rows are lost, they could not be written (%s)",
                self._path, _num_rows(self._unwritten), self._fault,
            )  # fmt: skip
        self._file.close()

    def _flush(self) -> None:
        """Write what there is, from the byte where the last write ended: half a line is completed.

        One more write than the disk takes: it is the one that names the fault.
        """
        waiting = self._unwritten
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
        except OSError as error:
            if self._fault is None:
                logger.warning(
                    "%s cannot be written (%s); training goes on, its rows are kept in memory and "
                    "written when that is put right", self._path, error,
                )  # fmt: skip
            self._fault = error
            return
        if self._fault is not None:
            logger.info(
                "%s can be written again: %d rows were waiting", self._path, _num_rows(waiting)
            )
            self._fault = None


def _num_rows(lines: bytes) -> int:
    """Rows, the end of a torn one counted; the empty line is what ends an earlier torn one."""
    return sum(1 for line in lines.splitlines() if line)


def _by_content(row: Mapping[str, Any]) -> str:
    """What makes an evaluation the same one.

    Not its comparisons: an earlier evaluation that comes in later changes them.
    """
    kept = {
        name: value
        for name, value in row.items()
        if name not in ("time", "attempt") and "/vs_" not in name
    }
    return json.dumps(kept, sort_keys=True)


def read_rows(run_dir: Path) -> list[dict[str, Any]]:
    """All rows, in the order written; a line torn by a kill is passed over."""
    return _parsed(_lines(run_dir))


def read_evaluation_rows(run_dir: Path) -> list[dict[str, Any]]:
    """The rows of evaluations. What a resume reads: the others, one a step, are not parsed."""
    found = _parsed(line for line in _lines(run_dir) if b'"eval/step"' in line)
    return [row for row in found if "eval/step" in row]


def _lines(run_dir: Path) -> Iterator[bytes]:
    path = run_dir / FILE_NAME
    if path.exists():
        with path.open("rb") as file:
            yield from file


def _parsed(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    rows = []
    for line in lines:
        with suppress(ValueError):  # of JSON, and of a character that was cut
            rows.append(json.loads(line))
    return rows


def _last_byte(path: Path) -> bytes:
    if not path.exists() or path.stat().st_size == 0:
        return b""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)


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
