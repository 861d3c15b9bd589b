"""Does a trainer still hold this run directory? The kernel knows; a process id may be reused."""

import fcntl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sft_dist.reporting.run_files import LOCK

Life = Literal["alive", "dead", "unknown"]


@dataclass(frozen=True)
class Holder:
    """`life` of the trainer, and what it wrote about itself (`pid 123 on host`), if anything."""

    life: Life
    name: str | None


def lock_holder(run_dir: Path) -> Holder:
    """Who holds the run's lock.

    `unknown` where there is no lock file (an evaluation's run directory) or the file system has no
    such locks. A lock held on another host counts where the file system shares locks (NFSv4,
    Lustre with `-o flock`); elsewhere that run looks dead, and the time of its last row says more.
    """
    path = run_dir / LOCK
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            name = file.read(200).strip() or None
            return Holder(_life(file.fileno()), name)
    except OSError:
        return Holder("unknown", None)


def _life(descriptor: int) -> Life:
    """A shared lock is asked for and given back at once: trainers hold exclusive ones."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return "alive"
    except OSError:
        return "unknown"
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return "dead"
