"""Ranks against one another: all-reduce bandwidth, and whether one computes slower."""

import statistics
import time
from collections.abc import Sequence

import torch
import torch.distributed as dist

from sft_dist.preflight_checks.findings import Finding

ELEMENTS = {"cuda": 2**26, "cpu": 2**22}
"""float32 elements of the reduced tensor: about a gradient bucket; less on a CPU."""
SIDE = {"cuda": 8192, "cpu": 768}
"""Side of the multiplied matrices."""
REPEATS = 5
SLOW = 1.25
"""A rank this many times slower than the middle one holds all of them up."""


def all_reduce_bandwidth(device: torch.device) -> float:
    """Bytes a second that each rank moves in an all-reduce; 0 with one rank. Collective.

    The usual figure of a ring: 2 (n - 1) / n times the tensor, by the time of the slowest rank.
    """
    ranks = dist.get_world_size()
    if ranks == 1:
        return 0.0
    tensor = torch.ones(ELEMENTS[device.type], device=device)
    times = []
    for _ in range(REPEATS + 1):
        dist.barrier()
        times.append(_timed(device, lambda: dist.all_reduce(tensor)))
    slowest = torch.tensor([min(times[1:])], device=device)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    return 2 * (ranks - 1) / ranks * tensor.numel() * 4 / float(slowest)


def compute_seconds(device: torch.device) -> float:
    """Seconds of a fixed matrix product on this rank, the middle of several."""
    side = SIDE[device.type]
    matrix = torch.ones(side, side, device=device, dtype=torch.bfloat16)
    times = [_timed(device, lambda: matrix @ matrix) for _ in range(REPEATS + 1)]
    return statistics.median(times[1:])


def bandwidth_finding(
    bandwidth: float, *, num_parameters: int, micro_batches: float, step_seconds: float
) -> Finding:
    """What the bandwidth means for a step.

    Args:
        bandwidth: from `all_reduce_bandwidth`.
        num_parameters: gradients are reduced in float32, once a micro-batch with ZeRO-2.
        micro_batches: of a step on a rank.
        step_seconds: of the probe's steps; 0 when unknown.
    """
    if not bandwidth:
        return Finding("all-reduce", "note", "one rank: nothing to reduce")
    seconds = 2 * 4 * num_parameters * micro_batches / bandwidth
    text = f"{bandwidth / 1e9:.2f} GB/s a rank: {seconds:.2f} s of reduction a step"
    if step_seconds and seconds > step_seconds / 2:
        return Finding(
            "all-reduce", "warning",
            f"{text}, of {step_seconds:.2f} s; larger micro-batches reduce less often",
        )  # fmt: skip
    return Finding("all-reduce", "ok", text)


def slow_rank_finding(seconds: Sequence[float], hosts: Sequence[str]) -> Finding:
    """Names the ranks that compute slower than the others."""
    middle = statistics.median(seconds)
    slow = [
        f"rank {rank} on {host} ({own / middle:.1f} times)"
        for rank, (own, host) in enumerate(zip(seconds, hosts, strict=True))
        if own > SLOW * middle
    ]
    if slow:
        return Finding("slow ranks", "warning", "slower than the others: " + ", ".join(slow))
    spread = max(seconds) / min(seconds)
    return Finding("slow ranks", "ok", f"none of {len(seconds)}; slowest / fastest {spread:.2f}")


def _timed(device: torch.device, work: object) -> float:
    assert callable(work)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
