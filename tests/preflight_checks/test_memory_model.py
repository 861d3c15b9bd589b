"""The arithmetic of the memory estimate, held to what tensors autograd really keeps."""

from dataclasses import replace

import pytest
import torch

from benchmarks.lean_layers import kept_bytes
from sft_dist.data.packing import micro_batches
from sft_dist.model import TokenScorer
from sft_dist.preflight_checks.memory_model import (
    KEPT_FREED,
    ModelShape,
    StepShape,
    estimate_memory,
)
from sft_dist.preflight_checks.probe_worker import examples_of
from tests.tiny import tiny_model

SHAPE = ModelShape(
    num_parameters=1_543_714_304, num_layers=28, hidden=1536, intermediate=8960, attention=1536,
    vocabulary=151_936, largest=151_936 * 1536, layer=46_797_824,
)  # fmt: skip
STEP = StepShape(
    engine="deepspeed", stage=2, world_size=8, dtype="bfloat16", tokens=4096, target_tokens=3000,
    cuda=True, bucket=100_000_000,
)  # fmt: skip


def kept_after(dtype, num_tokens, *, lean):
    """Bytes of the tensors that autograd keeps after a forward pass, parameters apart."""
    examples, positions = examples_of([[(num_tokens // 4, 20)] * 4])
    (batch,) = micro_batches(examples, positions)
    return kept_bytes(TokenScorer(tiny_model(dtype=dtype), lean=lean), batch)


@pytest.mark.parametrize("lean", [True, False])
@pytest.mark.parametrize(
    ("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_activations_are_what_autograd_keeps(name, dtype, lean):
    shape = ModelShape.of(tiny_model())
    assert shape.lean
    shape = replace(shape, lean=lean)
    step = StepShape(
        engine="torch", stage=0, world_size=1, dtype=name, tokens=400, target_tokens=320
    )
    estimated = estimate_memory(shape, step).parts["activations"]
    # The last norm, the rotary table and the statistics of the norms are not in the formula.
    assert estimated <= kept_after(dtype, 400, lean=lean) <= 1.25 * estimated


def test_zero_shards_what_it_says():
    alone = estimate_memory(SHAPE, replace(STEP, world_size=1))
    eight = estimate_memory(SHAPE, STEP)
    assert eight.parts["weights"] == alone.parts["weights"] == 2 * SHAPE.num_parameters
    assert eight.parts["optimizer"] == 8 * SHAPE.num_parameters // 8
    assert eight.parts["gradients"] == alone.parts["gradients"] // 8
    stage_3 = estimate_memory(SHAPE, replace(STEP, stage=3))
    assert stage_3.parts["weights"] == eight.parts["weights"] // 8


def test_the_plain_engine_holds_all_of_it_on_every_rank():
    one, many = (
        estimate_memory(SHAPE, replace(STEP, engine="torch", stage=0, world_size=n))
        for n in (1, 64)
    )
    assert one == many
    state = sum(one.parts[part] for part in ("weights", "masters", "optimizer", "gradients"))
    assert state == (2 + 4 + 8 + 4) * SHAPE.num_parameters


def test_recomputing_takes_less_and_a_longer_batch_more():
    usual = estimate_memory(SHAPE, STEP)
    assert estimate_memory(SHAPE, replace(STEP, activation_checkpointing=True)).peak < usual.peak
    assert estimate_memory(SHAPE, replace(STEP, tokens=8192)).peak > usual.peak


def test_only_a_cpus_allocator_keeps_what_was_freed():
    on_cpu = replace(STEP, cuda=False, tokens=512, target_tokens=400)
    kept = estimate_memory(SHAPE, on_cpu).parts["allocator"]
    assert estimate_memory(SHAPE, STEP).parts["allocator"] == 0
    assert kept < estimate_memory(SHAPE, replace(on_cpu, dtype="float32")).parts["allocator"]
    assert kept > estimate_memory(SHAPE, replace(on_cpu, engine="torch")).parts["allocator"]


def test_pieces_of_32_mib_go_back_to_the_system():
    # 936 tokens x 8,960 x 4 bytes just stay below that, so the MLP's three tensors still count.
    below, above = (
        estimate_memory(SHAPE, replace(STEP, cuda=False, dtype="float32", tokens=n)).parts[
            "allocator"
        ]
        for n in (936, 937)
    )
    mlp = SHAPE.num_layers * 3 * 936 * SHAPE.intermediate * 4
    assert below - above == pytest.approx(KEPT_FREED["deepspeed"] * mlp, rel=0.01)


def test_logits_are_bounded_by_a_chunk():
    short, long = (
        estimate_memory(SHAPE, replace(STEP, target_tokens=n)).parts["logits"] for n in (2000, 4000)
    )
    of_hidden = 2 * 2 * SHAPE.hidden * 2000
    assert long - short == of_hidden
