"""Writing `report.html`: what the command calls, and what training calls without a risk."""

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from sft_dist.durable import write_atomically
from sft_dist.reporting.page import build_page
from sft_dist.reporting.run import read_run
from sft_dist.reporting.run_files import REPORT

logger = logging.getLogger(__name__)


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run directory, for a run that goes on or has ended; its path.

    Never raises: a report is not worth a training run. What went wrong is logged, and an earlier
    report stays as it was.
    """
    target, began = run_dir / REPORT, time.monotonic()
    try:
        write_page([run_dir], target)
    except Exception:  # the border between a run and its report
        logger.warning("%s could not be written; the run goes on", target, exc_info=True)
    else:
        logger.debug("wrote %s in %.1f s", target, time.monotonic() - began)
    return target


class BackgroundReport:
    """Refreshes a run's report beside training; one at a time, a newer one may be left out."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._thread: threading.Thread | None = None

    def refresh(self) -> None:
        """Begin to write the report, unless one is being written; returns at once."""
        if self._thread is not None and self._thread.is_alive():
            return
        # A daemon: a run that ends meanwhile writes its last report itself.
        self._thread = threading.Thread(target=write_report, args=(self._run_dir,), daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait for the one being written and write the last."""
        if self._thread is not None:
            self._thread.join()
        write_report(self._run_dir)


def write_page(run_dirs: Sequence[Path], target: Path) -> None:
    """Write the page of one run, or of several side by side, to `target`.

    Raises:
        OSError: when `target` cannot be written; a reader sees the old page or the new.
    """
    runs = [read_run(path, prefix=f"r{index}") for index, path in enumerate(run_dirs)]
    write_atomically(target, build_page(runs), durable=False)
