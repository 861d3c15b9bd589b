"""Tokens of use, FLOP of a step, and the peak of the GPUs it ran on."""

from types import SimpleNamespace

import pytest

from sft_dist.tracking.throughput import (
    PEAK_FLOPS,
    peak_flops,
    performance_row,
    step_flops,
)

SHAPE = SimpleNamespace(num_hidden_layers=28, hidden_size=1536)


def test_six_flop_a_parameter_and_token_and_the_causal_half_of_attention():
    assert step_flops(SHAPE, 1000, [10]) == 6 * 1000 * 10 + 6 * 28 * 1536 * 100


def test_attention_costs_the_square_of_each_example_not_of_the_row():
    two, one = step_flops(SHAPE, 1000, [500, 500]), step_flops(SHAPE, 1000, [1000])
    assert one - two == 6 * 28 * 1536 * (1000**2 - 2 * 500**2)


@pytest.mark.parametrize(
    ("device", "key"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100-PCIE-40GB", "A100"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA B200", "B200"),
    ],
)
def test_gpus_are_known_by_the_names_that_cuda_gives(device, key):
    assert peak_flops(device) == PEAK_FLOPS[key]


@pytest.mark.parametrize("device", ["NVIDIA GeForce RTX 4090", "NVIDIA A100X", "Tesla V100", ""])
def test_a_gpu_that_is_not_in_the_table_has_no_peak(device):
    assert peak_flops(device) is None


def test_without_padding_every_computed_token_is_of_use():
    row = performance_row([10, 20, 30], [[30], [20, 10]], seconds=2, data_wait_seconds=0.5)
    assert row == {
        "perf/step_seconds": 2, "perf/data_wait_seconds": 0.5, "perf/tokens_per_second": 30,
        "perf/useful_token_share": 1, "perf/rank_imbalance": 1,
    }  # fmt: skip


def test_padding_lowers_the_useful_share_and_counts_as_work_of_its_rank():
    row = performance_row([10, 20, 30], [[60], [20]], seconds=2, data_wait_seconds=0)
    assert row["perf/useful_token_share"] == 60 / 80
    assert row["perf/rank_imbalance"] == 60 / 40
    assert row["perf/tokens_per_second"] == 30  # padding is not counted
