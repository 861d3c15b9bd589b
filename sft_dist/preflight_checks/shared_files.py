"""Whether every rank sees the same file system where the run directory will be."""

import time
from collections.abc import Sequence
from pathlib import Path

from sft_dist.errors import counted
from sft_dist.preflight_checks.findings import Finding

PATIENCE_SECONDS = 10.0
"""A network file system may show a new file some seconds late."""


def leave_mark(folder: Path, rank: int) -> None:
    """Write this rank's file; rank 0 has made the folder."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not folder.is_dir() and time.monotonic() < deadline:
        time.sleep(0.1)
    if folder.is_dir():
        (folder / f"rank-{rank}").touch()


def marks_seen(folder: Path, expected: int) -> int:
    """How many ranks' files this rank sees, after some patience."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        seen = len(list(folder.glob("rank-*"))) if folder.is_dir() else 0
        if seen >= expected or time.monotonic() > deadline:
            return seen
        time.sleep(0.1)


def shared_finding(seen: Sequence[int], hosts: Sequence[str], folder: Path) -> Finding:
    """Names the hosts that do not see what the others wrote.

    Args:
        seen: what `marks_seen` gave on each rank.
        hosts: of each rank.
        folder: the directory that holds the run directory.
    """
    missing = sorted({host for host, n in zip(hosts, seen, strict=True) if n < len(seen)})
    if missing:
        return Finding(
            "shared files", "no-go",
            f"{folder} is not the same directory on every node: {', '.join(missing)} see(s) only "
            f"some of the {len(seen)} ranks' files; put --output_dir on a shared file system",
        )  # fmt: skip
    seers = f"{counted(len(seen), 'rank')} on {counted(len(set(hosts)), 'node')}"
    return Finding("shared files", "ok", f"{folder} is seen by {seers}")
