"""Optimizer state by parameter name, as flat shards in torch's distributed-checkpoint format.

Every engine owns, of each parameter, a contiguous stretch of its flattened elements: all of it
(torch), what falls into its partition (ZeRO). Saved as such, the state of any engine at any world
size can be read into any other, and no rank ever holds or sends more than its own part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

from sft_dist.errors import CheckpointError

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


def save_optimizer_state(
    directory: Path, shards: Mapping[str, ParameterShard], adam_step: int
) -> None:
    """Write every rank's shards to `directory`. Collective.

    Args:
        directory: on a file system that all ranks see.
        shards: by Hugging Face parameter name.
        adam_step: updates applied so far (AdamW's bias correction counts them).
    """
    state = {**_flat(shards), STEP_KEY: torch.tensor([adam_step])}
    alone = not torch.distributed.is_initialized()
    dcp.save(
        state,
        checkpoint_id=directory,
        planner=_SavePlanner(flatten_state_dict=False),
        no_dist=alone,
    )


def load_optimizer_state(directory: Path, shards: Mapping[str, ParameterShard]) -> int:
    """Fill `shards` in place from `directory`; the number of updates applied. Collective.

    Raises:
        CheckpointError: when a parameter is missing there or has another size.
    """
    state: dict[str, Any] = {**_flat(shards), STEP_KEY: torch.zeros(1, dtype=torch.int64)}
    try:
        alone = not torch.distributed.is_initialized()
        dcp.load(
            state,
            checkpoint_id=directory,
            planner=_LoadPlanner(flatten_state_dict=False),
            no_dist=alone,
        )
    except Exception as error:  # DCP wraps what went wrong on any rank
        raise CheckpointError(
            f"expected the optimizer state of this model in {directory}, found: {error}"
        ) from error
    return int(state[STEP_KEY])


def _flat(shards: Mapping[str, ParameterShard]) -> dict[str, FlatShard]:
    flat = {}
    for name, shard in shards.items():
        for kind, values in {"master": shard.master, **shard.moments}.items():
            flat[f"{name}.{kind}"] = FlatShard(values, shard.offset, shard.numel)
    return flat
