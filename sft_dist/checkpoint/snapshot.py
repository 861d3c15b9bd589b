"""The state of one step, where training does not change it any more."""

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from sft_dist.checkpoint.agreement import SavingRanks
from sft_dist.checkpoint.host_memory import (
    HostMemory,
    fits_in_host_memory,
    needed_bytes,
    resident_bytes,
)
from sft_dist.optimizer_state import OptimizerState, ParameterShard

logger = logging.getLogger(__name__)

SLACK = 1 << 20
"""Bytes for the gaps between tensors: where it is too little, a first copy takes more memory."""


class HasState(Protocol):
    """What of an engine a snapshot needs; both are collective."""

    def weights(self) -> Iterator[tuple[str, Tensor | None]]: ...  # noqa: D102
    def optimizer_state(self) -> OptimizerState: ...  # noqa: D102


@dataclass(frozen=True)
class Snapshot:
    """This rank's part of a checkpoint."""

    weights: Mapping[str, Tensor]
    """Whole tensors by Hugging Face name on rank 0; empty on the others."""
    optimizer: OptimizerState | None
    """None when only the weights are wanted."""

    @property
    def nbytes(self) -> int:
        """Size of the tensors."""
        tensors = [*self.weights.values(), *(_tensors(self.optimizer) if self.optimizer else ())]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def memory_for_snapshots(
    engine: HasState, *, weight_bytes: int, ranks: SavingRanks, device: torch.device
) -> HostMemory | None:
    """Memory for copies of this rank's state, taken beside; None when a host has not enough.

    Collective.

    Args:
        engine: whose state.
        weight_bytes: of the whole model as it is exported; rank 0 copies it.
        ranks: all that save.
        device: of this rank.
    """
    state_bytes = needed_bytes(_tensors(engine.optimizer_state()))
    needed = state_bytes + SLACK
    if ranks.is_zero:
        needed += weight_bytes
    later = _yet_to_be_touched(weight_bytes, state_bytes) if device.type == "cpu" else 0
    on_host = (needed + later) * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if ranks.any(not fits_in_host_memory(on_host)):
        logger.warning(
            "--async_save: copies of the state take %.1f GiB on each rank, more than this host "
            "has free; training waits while checkpoints are written", needed / 2**30,
        )  # fmt: skip
        return None
    logger.info("saving beside training takes %.3g GiB of host memory on this rank", needed / 2**30)
    memory = HostMemory(device)
    memory.reserve(needed)
    return memory


def _yet_to_be_touched(weight_bytes: int, state_bytes: int) -> int:
    """What training on a CPU will take of the same memory and does not hold yet.

    Fresh moments are pages that nobody has written to; gradients are made in the first step, 4
    bytes of a parameter where its state has 12.
    """
    return max(0, weight_bytes + state_bytes + state_bytes // 3 - resident_bytes())


def take_snapshot(
    engine: HasState, memory: HostMemory | None, *, with_optimizer: bool = True
) -> Snapshot:
    """Copy the state to host memory. Collective.

    Args:
        engine: whose state.
        memory: where to. None: the weights go to memory of their own, and the optimizer state
            stays where it is, so the snapshot is good only until the next step.
        with_optimizer: False for the weights alone.
    """
    weights = {}
    for name, tensor in engine.weights():  # to the end on every rank: it gathers
        if tensor is not None:
            weights[name] = (
                memory.store(f"weights/{name}", tensor)
                if memory is not None
                else tensor.detach().to("cpu", copy=True)
            )
    if not with_optimizer:
        return Snapshot(weights, None)
    state = engine.optimizer_state()
    return Snapshot(weights, state if memory is None else _copied(state, memory))


def _copied(state: OptimizerState, memory: HostMemory) -> OptimizerState:
    def copy(name: str, shard: ParameterShard) -> ParameterShard:
        moments = {
            kind: memory.store(f"{kind}/{name}", values) for kind, values in shard.moments.items()
        }
        return replace(shard, master=memory.store(f"master/{name}", shard.master), moments=moments)

    return replace(state, shards={name: copy(name, s) for name, s in state.shards.items()})


def _tensors(state: OptimizerState) -> list[Tensor]:
    return [t for s in state.shards.values() for t in (s.master, *s.moments.values())]
