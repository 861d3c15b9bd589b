"""The batch of a step, made while the step before it computes."""

import threading

import pytest
import torch

from sft_dist.data.prefetch import BatchBuilder, BatchLoader
from sft_dist.data.sampler import BatchPlan
from sft_dist.normalization import LossNormalization
from tests.tiny import tiny_examples

PLAN = BatchPlan(num_examples=37, global_batch_size=8, num_epochs=2, seed=3)


def builder(rank=0, world_size=1, **settings):
    defaults = {
        "examples": tiny_examples(), "plan": PLAN, "max_tokens": 120, "packing": True,
        "normalization": LossNormalization(), "device": torch.device("cpu"),
    }  # fmt: skip
    return BatchBuilder(rank=rank, world_size=world_size, **{**defaults, **settings})


def rows(batch):
    return [micro_batch.input_ids.tolist() for micro_batch in batch.micro_batches]


@pytest.fixture
def open_loader():
    loaders = []

    def make(build, total_steps=PLAN.total_steps):
        loaders.append(BatchLoader(build, total_steps=total_steps))
        return loaders[-1]

    yield make
    for loader in loaders:
        loader.close()


def test_the_ranks_batches_are_the_global_batch():
    for step in range(PLAN.total_steps):
        seen = [
            example_id
            for rank in range(3)
            for micro_batch in builder(rank, 3)(step).micro_batches
            if not micro_batch.is_stand_in
            for example_id in micro_batch.example_ids
        ]
        expected = [e.id for e in builder()(step).examples]
        assert sorted(seen) == sorted(expected)
        assert expected == [f"train/x/{i}" for i in PLAN.global_batch(step)]


def test_all_ranks_count_the_same_tokens_and_micro_batches():
    for step in (0, PLAN.steps_per_epoch - 1):
        batches = [builder(rank, 7)(step) for rank in range(7)]
        assert all(b.computed_tokens == batches[0].computed_tokens for b in batches)
        for rank, batch in enumerate(batches):
            sizes = [micro_batch.input_ids.numel() for micro_batch in batch.micro_batches]
            assert sizes == batch.computed_tokens[rank]


def test_padding_and_normalisation_are_those_asked_for():
    (padded,) = builder(packing=False, max_tokens=10_000)(0).micro_batches
    assert padded.input_ids.shape[0] == 8
    (weighted,) = builder(normalization=LossNormalization("sequences"), max_tokens=10_000)(
        0
    ).micro_batches
    assert weighted.target_weights.sum() == pytest.approx(8)


def test_the_loader_gives_what_the_builder_gives_at_every_step(open_loader):
    loader = open_loader(builder(1, 2))
    for step in range(PLAN.total_steps):
        assert rows(loader.take(step)) == rows(builder(1, 2)(step))


@pytest.mark.parametrize("first", [0, 4, 9])
def test_a_resumed_run_gets_the_batches_it_would_have_had(open_loader, first):
    loader = open_loader(builder())
    assert [rows(loader.take(s)) for s in range(first, PLAN.total_steps)] == [
        rows(builder()(s)) for s in range(first, PLAN.total_steps)
    ]


def test_a_step_out_of_turn_gets_its_own_batch(open_loader):
    loader = open_loader(builder())
    for step in (0, 5, 2, 2):
        assert rows(loader.take(step)) == rows(builder()(step))


def test_the_next_batch_is_made_while_the_step_computes(open_loader):
    made = {step: threading.Event() for step in range(4)}
    threads = []

    def build(step):
        threads.append(threading.current_thread())
        made[step].set()
        return step

    loader = open_loader(build, total_steps=3)
    for step in range(3):
        assert loader.take(step) == step
        if step < 2:
            assert made[step + 1].wait(10)  # nobody has asked for it yet
    assert not made[3].wait(0.2)  # there is no step 3
    assert threading.current_thread() not in threads
    assert len(threads) == 3  # each once


def test_no_more_than_one_batch_is_made_ahead(open_loader):
    made, second = [], threading.Event()

    def build(step):
        made.append(step)
        if step == 1:
            second.set()
        return step

    loader = open_loader(build, total_steps=10)
    loader.take(0)
    assert second.wait(10)
    loader.close()
    assert made == [0, 1]


def test_an_error_comes_where_its_batch_is_asked_for(open_loader):
    def build(step):
        if step == 1:
            raise ValueError("example 7 is broken")
        return step

    loader = open_loader(build)
    assert loader.take(0) == 0
    with pytest.raises(ValueError, match="example 7 is broken"):
        loader.take(1)


def test_closing_ends_the_thread(open_loader):
    loader = open_loader(builder())
    loader.take(0)
    assert any(thread.name.startswith("next-batch") for thread in threading.enumerate())
    loader.close()
    assert not any(thread.name.startswith("next-batch") for thread in threading.enumerate())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_for_a_gpu_lie_in_pinned_memory():
    device = torch.device("cuda", 0)
    micro_batch = builder(device=device)(0).micro_batches[0]
    assert micro_batch.input_ids.is_pinned()
    assert micro_batch.target_ids.is_pinned()
    assert micro_batch.to(device).input_ids.tolist() == rows(builder()(0))[0]
