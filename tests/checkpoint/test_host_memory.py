"""Memory for copies: taken once, used again."""

import pytest
import torch

from sft_dist.checkpoint import SavingRanks, host_memory, snapshot
from sft_dist.checkpoint.host_memory import (
    HostMemory,
    fits_in_host_memory,
    needed_bytes,
    resident_bytes,
)
from tests.fake_engine import FakeEngine

CPU = torch.device("cpu")
TENSORS = {
    "matrix": torch.arange(12, dtype=torch.bfloat16).view(3, 4),
    "flat": torch.arange(1000, dtype=torch.float32),
    "scalar": torch.tensor(3.0),
    "empty": torch.empty(0, 4),
    "strided": torch.arange(12.0).view(3, 4).t(),
}


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(host_memory, "BLOCK", 4096)


def test_a_copy_is_equal_and_apart_from_its_source(small_blocks):
    memory = HostMemory(CPU)
    sources = {key: tensor.clone() for key, tensor in TENSORS.items()}
    copies = {key: memory.store(key, tensor) for key, tensor in sources.items()}
    for key, copy in copies.items():
        sources[key].add_(1)
        assert torch.equal(copy, TENSORS[key]), key
        assert copy.dtype == TENSORS[key].dtype


def test_a_copy_has_a_storage_of_its_own(small_blocks):
    """DCP would copy a view before it writes it."""
    memory = HostMemory(CPU)
    for key, tensor in TENSORS.items():
        copy = memory.store(key, tensor)
        assert copy.untyped_storage().nbytes() == copy.numel() * copy.element_size()


def test_the_same_tensors_again_take_no_more_memory(small_blocks):
    memory = HostMemory(CPU)
    first = {key: memory.store(key, tensor).data_ptr() for key, tensor in TENSORS.items()}
    taken = memory.nbytes
    again = {key: memory.store(key, tensor + 1).data_ptr() for key, tensor in TENSORS.items()}
    assert again == first
    assert memory.nbytes == taken


def test_memory_taken_ahead_is_enough_for_what_it_was_taken_for(small_blocks):
    memory = HostMemory(CPU)
    tensors = [torch.ones(n) for n in (1, 100, 3000, 7)]
    memory.reserve(needed_bytes(tensors))
    for number, tensor in enumerate(tensors):
        assert torch.equal(memory.store(str(number), tensor), tensor)
    assert memory.nbytes == needed_bytes(tensors)
    memory.store("one more", torch.ones(10))
    assert memory.nbytes == needed_bytes(tensors) + 4096


def test_a_tensor_that_changed_its_shape_gets_a_place_that_fits(small_blocks):
    memory = HostMemory(CPU)
    memory.store("x", torch.ones(3))
    assert torch.equal(memory.store("x", torch.ones(5, 2)), torch.ones(5, 2))


@pytest.mark.parametrize(
    ("free", "needed", "fits"), [(100, 80, True), (100, 81, False), (None, 10**18, True)]
)
def test_some_of_the_free_memory_stays_free(monkeypatch, free, needed, fits):
    monkeypatch.setattr(host_memory, "_free_bytes", lambda: free)
    assert fits_in_host_memory(needed) is fits


def test_the_limit_of_a_cgroup_counts_and_its_file_cache_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(host_memory, "CGROUP", tmp_path)
    monkeypatch.setattr(host_memory, "_own_cgroup", lambda: "job")
    (tmp_path / "job").mkdir()
    for name, text in {"memory.max": "1000\n", "memory.current": "700\n",
                       "memory.stat": "anon 400\ninactive_file 200\n"}.items():  # fmt: skip
        (tmp_path / "job" / name).write_text(text)
    assert host_memory._free_bytes() == 500
    (tmp_path / "job/memory.max").write_text("max\n")
    assert host_memory._free_bytes() > 1000


def test_on_a_cpu_memory_that_training_has_yet_to_touch_is_not_free(monkeypatch):
    asked = []
    monkeypatch.setattr(snapshot, "fits_in_host_memory", lambda n: asked.append(n) or True)
    engine, weights = FakeEngine(), 1000
    state = needed_bytes(snapshot._tensors(engine.optimizer_state()))
    for held in (0, 1 << 40):  # before the first step, and long after it
        monkeypatch.setattr(snapshot, "resident_bytes", lambda held=held: held)
        snapshot.memory_for_snapshots(
            engine, weight_bytes=weights, ranks=SavingRanks(), device=torch.device("cpu")
        )
    assert asked[0] - asked[1] == weights + state + state // 3
    assert asked[1] >= weights + state


def test_a_process_holds_what_it_has_touched():
    before = resident_bytes()
    held = torch.ones(8 << 20)
    assert resident_bytes() - before > 0.9 * held.numel() * 4
