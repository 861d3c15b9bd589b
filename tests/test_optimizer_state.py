"""Optimizer state by parameter: what one cut of it wrote, another cut reads."""

import errno
import os

import pytest
import torch

from sft_dist.errors import CheckpointError
from sft_dist.optimizer_state import (
    MOMENTS,
    OptimizerState,
    ParameterShard,
    load_optimizer_state,
    save_optimizer_state,
)


def shard(offset, count, numel=10, fill=None):
    values = [
        torch.arange(offset, offset + count, dtype=torch.float32) + 100 * kind
        if fill is None
        else torch.full((count,), float(fill))
        for kind in range(3)
    ]
    return ParameterShard(offset, numel, values[0], dict(zip(MOMENTS, values[1:], strict=True)))


def test_a_state_comes_back_with_the_number_of_its_updates(tmp_path):
    save_optimizer_state(tmp_path / "engine", OptimizerState({"w": shard(0, 10)}, 7))
    read = shard(0, 10, fill=-1)
    assert load_optimizer_state(tmp_path / "engine", {"w": read}) == 7
    assert torch.equal(read.master, shard(0, 10).master)
    for kind in MOMENTS:
        assert torch.equal(read.moments[kind], shard(0, 10).moments[kind])


@pytest.mark.parametrize(("offset", "count"), [(0, 4), (4, 6), (9, 1)])
def test_a_part_can_be_read(tmp_path, offset, count):
    save_optimizer_state(tmp_path / "engine", OptimizerState({"w": shard(0, 10)}, 7))
    read = shard(offset, count, fill=-1)
    load_optimizer_state(tmp_path / "engine", {"w": read})
    assert torch.equal(read.master, shard(offset, count).master)


@pytest.mark.parametrize("shards", [{"v": shard(0, 10)}, {"w": shard(0, 12, numel=12)}])
def test_a_state_of_another_model_is_an_error(tmp_path, shards):
    save_optimizer_state(tmp_path / "engine", OptimizerState({"w": shard(0, 10)}, 7))
    with pytest.raises(CheckpointError, match="expected the optimizer state of this model"):
        load_optimizer_state(tmp_path / "engine", shards)


def test_an_error_of_the_disk_comes_out_as_it_was(tmp_path, monkeypatch):
    """DCP wraps it in what is no Exception, which would end a thread unheard."""
    (tmp_path / "engine").mkdir()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left") as caught:
        save_optimizer_state(tmp_path / "engine", OptimizerState({"w": shard(0, 10)}, 7))
    assert caught.value.errno == errno.ENOSPC
