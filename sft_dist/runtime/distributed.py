"""Ranks: enter and leave the process group, with or without torchrun.

Collectives belong to the training step, to saving and to the agreement to stop. After an error no
rank enters another one, because the others may not be there.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from sft_dist.runtime.launch_environment import free_port

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ranks:
    """Where this process stands among the others."""

    rank: int
    local_rank: int
    world_size: int
    device: torch.device

    @property
    def is_zero(self) -> bool:
        """Whether this is the rank that writes files and logs."""
        return self.rank == 0


def use_deterministic_kernels() -> None:
    """Repeatable to the bit on a GPU too, and slower; call before anything is allocated there."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("FLASH_ATTENTION_DETERMINISTIC", "1")  # read by transformers
    torch.use_deterministic_algorithms(True)


@contextmanager
def distributed(timeout_seconds: int = 1800) -> Iterator[Ranks]:
    """Join the process group; leave it at the end, or when an error ends it.

    An exchange under way is ended first: the sums of a step, for which its peers come soon.

    `timeout_seconds` is `--collective_timeout`.
    """
    _set_single_process_environment()
    local_rank = int(os.environ["LOCAL_RANK"])
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    # On the CPU DeepSpeed would otherwise look for an accelerator and warn on every rank.
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if cuda else "cpu")
    dist.init_process_group("nccl" if cuda else "gloo", timeout=backend_timeout(timeout_seconds))
    try:
        yield Ranks(dist.get_rank(), local_rank, dist.get_world_size(), device)
        dist.barrier()
    finally:
        dist.destroy_process_group()


def backend_timeout(timeout_seconds: int) -> timedelta:
    """When a collective fails by itself: after `watch.py`, whose words say more, has spoken.

    gloo raises where training waits, which ends a run in good order, and so comes before the watch
    ends the process; NCCL aborts the process without a word, and so comes after.
    """
    return timedelta(seconds=timeout_seconds + (90 if torch.cuda.is_available() else 15))


def set_group_timeouts(timeout_seconds: int) -> None:
    """Give the groups that an engine has made the timeout of ours.

    DeepSpeed makes its own with the backend's default, 10 minutes for NCCL.
    """
    for group in list(dist.distributed_c10d._world.pg_map):
        dist.distributed_c10d._set_pg_timeout(backend_timeout(timeout_seconds), group)


def broadcast_text(text: str | None) -> str:
    """Rank 0's text on every rank. Collective."""
    box = [text]
    dist.broadcast_object_list(box, src=0)
    assert box[0] is not None
    return box[0]


def any_ranks(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Of each flag whether any rank says so; every rank gets the same answers. Collective."""
    if not dist.is_initialized():
        return list(flags)
    box = torch.tensor(flags, dtype=torch.int64, device=device)
    dist.all_reduce(box, op=dist.ReduceOp.MAX)
    return box.bool().tolist()


def _set_single_process_environment() -> None:
    """What torchrun would set for a single process; DeepSpeed asks for all five."""
    if "RANK" in os.environ:
        return
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
