"""What a start costs, part by part, from the birth of the process to the end of the first step."""

import logging
import os
import time
from pathlib import Path

logger = logging.getLogger(__name__)

PARTS = ("imports", "data", "ranks", "observers", "model", "engine", "first_step")
"""In order; each is declared as `startup/<part>_seconds` in `metrics.py`."""


class StartupTimes:
    """A stop-watch that has been running since the process began."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._last = 0.0
        self._born = time.monotonic() - process_age()

    def done(self, part: str) -> None:
        """`part` ends now; it began where the one before it ended."""
        if part not in PARTS:
            raise KeyError(f"{part} is not one of {PARTS}")
        now = time.monotonic() - self._born
        self._seconds[part] = self._seconds.get(part, 0.0) + now - self._last
        self._last = now

    def row(self) -> dict[str, float]:
        """Seconds by metric name, and their sum; also one line in the log."""
        parts = ", ".join(f"{part.replace('_', ' ')} {s:.1f}" for part, s in self._seconds.items())
        logger.info("start-up: %.1f s (%s)", self._last, parts)
        row = {f"startup/{part}_seconds": seconds for part, seconds in self._seconds.items()}
        return row | {"startup/total_seconds": self._last}


def process_age() -> float:
    """Seconds since this process began, with the interpreter's own start; 0 where unknown.

    Source: proc(5): field 22 of `/proc/self/stat`, in clock ticks since boot.
    """
    try:
        stat = Path("/proc/self/stat").read_text()
        after_name = stat.rpartition(")")[2].split()  # field 3 on; a name may hold spaces
        born = int(after_name[22 - 3]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - born)
    except (OSError, AttributeError):  # not Linux
        return 0.0
