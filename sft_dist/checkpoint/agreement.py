"""The ranks that save together: each does its part, then all know whether all have.

They speak through a process group of their own, on the CPU: the threads that write must never be
in a collective of the group that trains.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from sft_dist.checkpoint.failure import explain
from sft_dist.errors import CheckpointError

logger = logging.getLogger(__name__)

T = TypeVar("T")

TIMEOUT = timedelta(hours=2)
"""How long a rank waits for the slowest one's disk."""


class SavingRanks:
    """All ranks of the run, or the only one."""

    def __init__(self) -> None:
        """Make the group. Collective, when there are several ranks."""
        several = dist.is_initialized() and dist.get_world_size() > 1
        self.group: Any = dist.new_group(backend="gloo", timeout=TIMEOUT) if several else None
        self.rank = dist.get_rank() if several else 0
        self.size = dist.get_world_size() if several else 1

    @property
    def is_zero(self) -> bool:
        """Whether this is the rank that names what was written."""
        return self.rank == 0

    def alone(self, target: Path, work: Callable[[], None]) -> None:
        """Do what one rank does without the others; CheckpointError when it fails."""
        try:
            work()
        except Exception as error:
            logger.debug("writing %s failed", target, exc_info=True)
            raise CheckpointError(f"could not write {target} ({explain(error, target)})") from error

    def together(self, target: Path, work: Callable[[], T]) -> list[T]:
        """Do `work` on every rank; what it gave, by rank. Collective.

        Raises:
            CheckpointError: on all ranks when it failed on any: a rank that went on alone would
                wait for the others.
        """
        result, fault = None, None
        try:
            result = work()
        except Exception as error:  # whatever it is: the others must hear of it
            logger.debug("writing %s failed", target, exc_info=True)
            fault = explain(error, target)
        outcomes = self._gather((result, fault))
        faults = _by_rank([text for _, text in outcomes])
        if faults:
            raise CheckpointError(
                f"could not write {target} ({faults}). Older checkpoints are whole: when this is "
                "put right, --resume_from_checkpoint latest goes on from them"
            )
        return [result for result, _ in outcomes]

    def any(self, flag: bool) -> bool:
        """Whether any rank says so; every rank gets the same answer. Collective."""
        return any(self._gather(flag))

    def _gather(self, mine: Any) -> list[Any]:
        if self.group is None:
            return [mine]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, mine, group=self.group)
        return found


def _by_rank(faults: Sequence[str | None]) -> str:
    """Each fault once, with the ranks that had it; all of them when the disk is full."""
    ranks: dict[str, list[str]] = {}
    for rank, text in enumerate(faults):
        if text is not None:
            ranks.setdefault(text, []).append(str(rank))
    said = (
        f"rank{'s' if len(found) > 1 else ''} {', '.join(found)}: {text}"
        for text, found in ranks.items()
    )
    return "; ".join(said)
