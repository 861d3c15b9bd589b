"""Packed rows against a reference that walks through every token."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sft_dist.data.packing import empty_micro_batch, micro_batches, pack, pad
from sft_dist.data.tokenization import TokenizedExample
from sft_dist.normalization import LossNormalization


@st.composite
def examples(draw):
    found = []
    for index in range(draw(st.integers(1, 6))):
        ids = draw(st.lists(st.integers(0, 999), min_size=2, max_size=12))
        prompt_length = draw(st.integers(1, len(ids) - 1))
        found.append(TokenizedExample(f"train/{index}", np.array(ids), prompt_length))
    return found


def reference(batch):
    """(tokens, positions in their example, places with a loss, tokens predicted there)."""
    tokens, positions, places, predicted = [], [], [], []
    for example in batch:
        for position, token in enumerate(example.input_ids.tolist()):
            if position >= example.prompt_length:
                places.append(len(tokens) - 1)
                predicted.append(token)
            tokens.append(token)
            positions.append(position)
    return tokens, positions, places, predicted


@settings(deadline=None, max_examples=100)
@given(examples())
def test_a_packed_row_is_what_walking_through_the_tokens_gives(batch):
    packed = pack(batch)
    tokens, positions, places, predicted = reference(batch)
    assert packed.input_ids.tolist() == [tokens]
    assert packed.position_ids.tolist() == [positions]
    assert packed.target_positions.tolist() == places
    assert packed.target_ids.tolist() == predicted


@settings(deadline=None, max_examples=100)
@given(examples())
def test_padded_rows_hold_the_same_losses_in_the_same_order(batch):
    packed, padded = pack(batch), pad(batch)
    width = max(len(e) for e in batch)
    assert padded.input_ids.shape == padded.position_ids.shape == (len(batch), width)
    assert padded.cu_seqlens is None
    for row, example in zip(padded.input_ids, batch, strict=True):
        assert row[: len(example)].tolist() == example.input_ids.tolist()
    assert padded.target_ids.tolist() == packed.target_ids.tolist()
    before = padded.input_ids.flatten()[padded.target_positions]
    assert before.tolist() == packed.input_ids[0][packed.target_positions].tolist()
    assert padded.num_tokens == packed.num_tokens
    assert padded.num_target_tokens == packed.num_target_tokens


@settings(deadline=None, max_examples=50)
@given(examples())
def test_each_example_counts_the_same_when_sequences_do(batch):
    for join in (pack, pad):
        weights = join(batch, LossNormalization("sequences")).target_weights
        for part in weights.split([e.num_target_tokens for e in batch]):
            assert part.sum().item() == pytest.approx(1.0, abs=1e-6)


@settings(deadline=None, max_examples=100)
@given(examples())
def test_no_loss_crosses_from_one_example_into_the_next(batch):
    packed = pack(batch)
    bounds = packed.cu_seqlens.tolist()
    for start, end in pairwise(bounds):
        own = [p for p in packed.target_positions.tolist() if start <= p < end]
        assert all(position + 1 < end for position in own)


@settings(deadline=None, max_examples=100)
@given(examples())
def test_counts_are_the_sums_of_those_of_the_examples(batch):
    packed = pack(batch)
    assert packed.num_tokens == sum(len(e) for e in batch)
    assert packed.num_target_tokens == sum(e.num_target_tokens for e in batch)
    assert packed.lengths == tuple(len(e) for e in batch)
    assert packed.cu_seqlens.tolist() == [0, *np.cumsum(packed.lengths).tolist()]
    assert packed.example_ids == tuple(e.id for e in batch)
    assert not packed.is_stand_in
    assert packed.target_weights.tolist() == [1.0] * packed.num_target_tokens


def test_the_types_are_those_that_embedding_and_attention_kernels_take():
    packed = pack([TokenizedExample("a", np.array([1, 2, 3]), 1)])
    assert packed.cu_seqlens.dtype == torch.int32
    for name in ("input_ids", "position_ids", "target_positions", "target_ids"):
        assert getattr(packed, name).dtype == torch.int64, name


def test_the_packed_row_shares_no_memory_with_its_examples():
    example = TokenizedExample("a", np.array([1, 2, 3]), 1)
    pack([example]).input_ids.fill_(9)
    assert example.input_ids.tolist() == [1, 2, 3]


def test_an_empty_micro_batch_runs_and_counts_for_nothing():
    stand_in = empty_micro_batch()
    assert stand_in.is_stand_in
    assert not stand_in.target_weights.any()
    assert stand_in.num_tokens == 0
    assert stand_in.num_target_tokens == 0
    assert stand_in.input_ids.shape[1] > 0  # there is something to run
    assert len(stand_in.target_positions) > 0
    assert "train" not in " ".join(stand_in.example_ids)


def test_moving_a_micro_batch_keeps_everything():
    packed = pack([TokenizedExample("a", np.array([1, 2, 3]), 1)])
    moved = packed.to(torch.device("meta"))
    assert moved.input_ids.device.type == moved.cu_seqlens.device.type == "meta"
    assert (moved.lengths, moved.is_stand_in, moved.example_ids) == ((3,), False, ("a",))
    there = packed.to(torch.device("cpu"))
    assert torch.equal(there.target_positions, packed.target_positions)


@pytest.mark.parametrize("plan", [[[2, 0], [1]], [[1], []], [[]]])
def test_micro_batches_follow_the_plan_with_a_stand_in_for_empty_ones(plan):
    batch = [TokenizedExample(str(i), np.array([i, i, i]), 1) for i in range(3)]
    found = micro_batches(batch, plan)
    assert [m.is_stand_in for m in found] == [not part for part in plan]
    for micro_batch, part in zip(found, plan, strict=True):
        if part:
            assert micro_batch.example_ids == tuple(str(i) for i in part)
            assert micro_batch.input_ids.tolist() == [[i for i in part for _ in range(3)]]


def test_examples_of_one_micro_batch_stand_in_order_of_length():
    batch = [TokenizedExample(str(n), np.zeros(n, dtype=np.int64), 1) for n in (5, 3, 4, 3)]
    (found,) = micro_batches(batch, [[0, 1, 2, 3]])
    assert found.lengths == (3, 3, 4, 5)
    (padded,) = micro_batches(batch, [[0, 1, 2, 3]], packing=False)
    assert padded.input_ids.shape == (4, 5)
