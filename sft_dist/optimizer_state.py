"""Optimizer state by parameter name, as flat shards in torch's distributed-checkpoint format.

Every engine owns, of each parameter, a contiguous stretch of its flattened elements: all of it
(torch), what falls into its partition (ZeRO). Saved as such, the state of any engine at any world
size can be read into any other, and no rank ever holds or sends more than its own part.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

from sft_dist.errors import CheckpointError

# A run of one rank is no mistake.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable")

MOMENTS = ("exp_avg", "exp_avg_sq")
STEP_KEY = "adam_step"


class FlatShard:
    """Elements `offset ... offset + len(values)` of a flattened tensor of `numel` elements.

    Implements torch's `_Checkpointable` protocol (torch/distributed/_checkpointable.py), by which
    DCP saves a shard and fills one in place. No dataclass: DCP would take it apart.
    """

    def __init__(self, values: Tensor, offset: int, numel: int) -> None:
        """`values` (n,) is a view into the engine's memory."""
        self.values = values
        self.offset = offset
        self.numel = numel

    def _chunk(self) -> ChunkStorageMetadata:
        return ChunkStorageMetadata(torch.Size([self.offset]), self.values.size())

    def __create_write_items__(self, fqn: str, _: object) -> list[WriteItem]:
        data = TensorWriteData(
            chunk=self._chunk(),
            properties=TensorProperties.create_from_tensor(self.values),
            size=torch.Size([self.numel]),
        )
        index = MetadataIndex(fqn, torch.Size([self.offset]))
        return [WriteItem(index=index, type=WriteItemType.SHARD, tensor_data=data)]

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        return [self._chunk()]

    def __get_tensor_shard__(self, _: MetadataIndex) -> Tensor:
        return self.values

    def size(self) -> torch.Size:
        """Of the whole flattened tensor: DCP refuses a checkpoint of another size."""
        return torch.Size([self.numel])


class _SavePlanner(DefaultSavePlanner):
    """DCP's planner looks inside tensors only; a shard that is not one it must be told of."""

    def lookup_object(self, index: MetadataIndex) -> Any:
        found = self.state_dict[index.fqn]
        return found.values if isinstance(found, FlatShard) else super().lookup_object(index)


class _LoadPlanner(DefaultLoadPlanner):
    def set_up_planner(self, state_dict: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        # The default replaces, in the dictionary it is given, what is no tensor by None.
        super().set_up_planner(dict(state_dict), *args, **kwargs)
        self.state_dict = self.original_state_dict = state_dict

    def lookup_tensor(self, index: MetadataIndex) -> Tensor:
        found = self.state_dict[index.fqn]
        return found.values if isinstance(found, FlatShard) else super().lookup_tensor(index)


@dataclass(frozen=True)
class ParameterShard:
    """One rank's part of a parameter's optimizer state; float32 views of `(n,)` elements."""

    offset: int
    numel: int
    master: Tensor
    moments: Mapping[str, Tensor]
    """By name in `MOMENTS`."""


@dataclass(frozen=True)
class OptimizerState:
    """One rank's part of the optimizer state."""

    shards: Mapping[str, ParameterShard]
    """By Hugging Face parameter name; parameters of which the rank has no part are left out."""
    adam_step: int
    """Updates applied so far: AdamW's bias correction counts them."""


def save_optimizer_state(
    directory: Path, state: OptimizerState, *, group: dist.ProcessGroup | None = None
) -> None:
    """Write every rank's shards to `directory`. Collective.

    Args:
        directory: on a file system that all ranks see.
        state: this rank's part.
        group: the ranks that write; None: all there are, through the group that trains.

    Raises:
        CheckpointError: on every rank; on a rank that failed itself, what went wrong there.
    """
    tensors = {**_flat(state.shards), STEP_KEY: torch.tensor([state.adam_step])}
    # Nothing is copied ahead from a GPU, and the caller makes the files durable.
    writer = FileSystemWriter(directory, sync_files=False, per_thread_copy_ahead=0)
    try:
        dcp.save(
            tensors,
            storage_writer=writer,
            planner=_SavePlanner(flatten_state_dict=False),
            process_group=group,
            no_dist=_is_alone(),
        )
    except CheckpointException as error:  # no Exception: it would end the thread unheard
        raise _own_fault(error, group) from error


def load_optimizer_state(directory: Path, shards: Mapping[str, ParameterShard]) -> int:
    """Fill `shards` in place from `directory`; the number of updates applied. Collective.

    Raises:
        CheckpointError: when a parameter is missing there or has another size.
    """
    state: dict[str, Any] = {**_flat(shards), STEP_KEY: torch.zeros(1, dtype=torch.int64)}
    try:
        dcp.load(
            state,
            checkpoint_id=directory,
            planner=_LoadPlanner(flatten_state_dict=False),
            no_dist=_is_alone(),
        )
    except (Exception, CheckpointException) as error:  # DCP wraps what went wrong on any rank
        raise CheckpointError(
            f"expected the optimizer state of this model in {directory}, found: {error}"
        ) from error
    return int(state[STEP_KEY])


def _is_alone() -> bool:
    return not dist.is_initialized() or dist.get_world_size() == 1


def _own_fault(error: CheckpointException, group: dist.ProcessGroup | None) -> Exception:
    """What went wrong on this rank, as it was; else on which ranks something did."""
    rank = 0 if _is_alone() else dist.get_rank(group)
    own = error.failures.get(rank)
    if own is not None and isinstance(own[0], Exception):
        return own[0]
    return CheckpointError(f"the optimizer state of ranks {sorted(error.failures)} is not written")


def _flat(shards: Mapping[str, ParameterShard]) -> dict[str, FlatShard]:
    flat = {}
    for name, shard in shards.items():
        for kind, values in {"master": shard.master, **shard.moments}.items():
            flat[f"{name}.{kind}"] = FlatShard(values, shard.offset, shard.numel)
    return flat
