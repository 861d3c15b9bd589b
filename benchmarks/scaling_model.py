"""A model of what a run costs on 1 to 512 GPUs, and two simulations at 512 ranks.

    python benchmarks/scaling_model.py            # the tables of docs/scaling.md

The tables of costs are arithmetic from the figures in `Machine` and `Job`, which are assumptions;
the planner of `sft_dist/data/batching.py` is run and timed on drawn lengths; the evaluation queue
is simulated event by event.
"""

import heapq
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sft_dist.data.batching import split_global_batch


@dataclass(frozen=True)
class Machine:
    """Nodes of 8 GPUs. Rates are what software gets, not what the data sheet says."""

    flops: float = 989e12 * 0.40
    """bf16 of an H100 at 40 % of its peak."""
    nvlink: float = 300e9
    """Bytes/s a GPU inside a node."""
    network_share: float = 0.8
    """Of a node's network, what a ring gets."""
    hop: float = 5e-6
    """Seconds a hop of a ring."""
    file_system: float = 20e9
    """Bytes/s of the shared file system, all nodes together."""
    writer: float = 2e9
    """Bytes/s that one process writes."""
    opens: float = 50_000
    """Files/s that the shared file system opens."""
    vllm: float = 15_000
    """Tokens/s that vLLM decodes on one GPU with many prompts."""


@dataclass(frozen=True)
class Job:
    """Qwen2.5-Math-1.5B on MATH."""

    parameters: float = 1.544e9
    tokens: float = 2_286_573
    """Of an epoch (benchmarks/README.md)."""
    examples: int = 7_493
    epochs: int = 3
    micro_tokens: float = 8192
    bucket: float = 1e8
    answers: int = 500
    answer_tokens: float = 400
    imported_files: float = 8_000


MACHINE, JOB = Machine(), Job()
GPUS = (1, 8, 16, 64, 256, 512)
NETWORKS = (100, 400, 800, 1600, 3200)
"""Gb/s of a node."""


def ring_seconds(size: float, gpus: int, gigabits: float, *, passes: int) -> float:
    """An all-reduce (2 passes) or a reduce-scatter or all-gather (1) of `size` bytes."""
    if gpus == 1:
        return 0.0
    nodes = -(-gpus // 8)
    inside = passes * (min(gpus, 8) - 1) / min(gpus, 8) * size / MACHINE.nvlink
    wire = gigabits * 1e9 / 8 * MACHINE.network_share
    across = passes * (nodes - 1) / nodes * size / wire
    buckets = max(1.0, size / (4 * JOB.bucket))
    return max(inside, across) + passes * (gpus - 1) * MACHINE.hop * buckets


@dataclass(frozen=True)
class Step:
    """Seconds of a step, by part."""

    compute: float
    communication: float
    micro_batches: int

    @property
    def seconds(self) -> float:
        """Of the whole step: nothing overlaps."""
        return self.compute + self.communication

    @property
    def efficiency(self) -> float:
        """Share of the step that computes."""
        return self.compute / self.seconds


def reduction_passes(engine: str, micro_batches: int) -> int:
    """How often a step sends the share (n - 1)/n of its float32 gradients.

    ZeRO-2 all-reduces (two passes) at every micro-batch; FSDP2, held whole in the step,
    reduce-scatters once. Both gather bf16 weights once, in one pass more.
    """
    return 2 * micro_batches if engine == "ZeRO-2" else 1


def step(gpus: int, batch: int, gigabits: float, *, engine: str = "ZeRO-2") -> Step:
    """One optimizer step; nothing overlaps, as configured."""
    tokens = batch * JOB.tokens / JOB.examples
    busy = min(gpus, batch)
    micro = max(1, round(np.ceil(tokens / busy / JOB.micro_tokens)))
    compute = 6 * JOB.parameters * tokens / busy / MACHINE.flops
    passes = reduction_passes(engine, micro)
    reduce = ring_seconds(4 * JOB.parameters, gpus, gigabits, passes=passes)
    gather = ring_seconds(2 * JOB.parameters, gpus, gigabits, passes=1)
    return Step(compute, reduce + gather, micro)


def checkpoint_seconds(gpus: int) -> float:
    """Weights by rank 0, 12 bytes a parameter of optimizer state by all ranks."""
    weights = 2 * JOB.parameters / MACHINE.writer
    state = 12 * JOB.parameters / min(gpus * MACHINE.writer, MACHINE.file_system)
    return weights + state


def start_up(gpus: int) -> dict[str, float]:
    """Seconds from `srun` to the first step, by part."""
    nodes = -(-gpus // 8)
    return {
        "interpreter, imports": 12 + gpus * JOB.imported_files / MACHINE.opens,
        "ranks meet": 2 + 0.02 * gpus,
        "weights read": nodes * 2 * JOB.parameters / MACHINE.file_system + 2,
        "engine": 5.0,
    }


def evaluation_seconds(answers: int) -> float:
    """Reload in place, decode, grade."""
    return 3 + answers * JOB.answer_tokens / MACHINE.vllm


def table(head: Sequence[str], rows: Iterator[Sequence[object]]) -> None:
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")


def network_rows(engine: str, batch: int) -> Iterator[list[object]]:
    for gpus in GPUS:
        found = [step(gpus, batch, network, engine=engine) for network in NETWORKS]
        yield [gpus, found[0].micro_batches, f"{found[0].compute:.2f}",
               *(f"{s.seconds:.2f} ({s.efficiency:.0%})" for s in found)]  # fmt: skip


def run_rows(batch: int) -> Iterator[list[object]]:
    steps = -(-JOB.examples // batch) * JOB.epochs
    for gpus in GPUS:
        train = steps * step(gpus, batch, 400).seconds
        start, save = sum(start_up(gpus).values()), JOB.epochs * checkpoint_seconds(gpus)
        # One GPU shared with vLLM at half speed: all ranks wait for it.
        shared = (JOB.epochs + 1) * evaluation_seconds(JOB.answers)
        total = start + train + save + shared / 2
        seconds = (f"{part:.0f}" for part in (start, train, save, shared / 2))
        whole = f"{total / 60:.1f} min", f"{gpus * total / 3600:.1f}", f"{train / total:.0%}"
        yield [gpus, *seconds, *whole]


def lengths_like_math(source: np.random.Generator, count: int) -> list[int]:
    """Tokens of so many examples: log-normal, mean 305, between 40 and 1,024."""
    return [int(x) for x in np.clip(np.exp(source.normal(5.55, 0.6, count)), 40, 1024)]


def planner_rows() -> Iterator[list[object]]:
    """The real planner on lengths like MATH's."""
    source = np.random.default_rng(0)
    for ranks, each in ((8, 32), (64, 32), (512, 1), (512, 2), (512, 4), (512, 8), (512, 32)):
        times, imbalances = [], []
        for _ in range(5):
            lengths = lengths_like_math(source, ranks * each)
            began = time.process_time()
            plan = split_global_batch(lengths, ranks, int(JOB.micro_tokens))
            times.append(time.process_time() - began)
            loads = [sum(lengths[i] for part in rank for i in part) for rank in plan]
            imbalances.append(max(loads) / np.mean(loads))
        yield [ranks, each, ranks * each, f"{1e3 * np.median(times):.1f}",
               f"{np.mean(imbalances):.3f}", f"{max(imbalances):.3f}"]  # fmt: skip


def queue_delays(arrivals: Sequence[float], seconds: float, workers: int) -> list[float]:
    """Seconds from each request to its result, first come first served."""
    free = [0.0] * workers
    delays = []
    for arrival in arrivals:
        begin = max(arrival, heapq.heappop(free))
        heapq.heappush(free, begin + seconds)
        delays.append(begin + seconds - arrival)
    return delays


def queue_rows(gpus: int, batch: int) -> Iterator[list[object]]:
    """Every five steps, all 5,000 test problems: how late the results are."""
    seconds = step(gpus, batch, 400).seconds
    steps = -(-JOB.examples // batch) * JOB.epochs
    arrivals = [n * seconds for n in range(0, steps + 1, 5)]
    assert all(b > a for a, b in pairwise(arrivals))
    for workers in (1, 2, 4, 8, 16):
        for answers in (500, 5000):
            delays = queue_delays(arrivals, evaluation_seconds(answers), workers)
            ends = [a + d for a, d in zip(arrivals, delays, strict=True)]
            late = max(0.0, max(ends) - steps * seconds)
            figures = (f"{number:.0f}" for number in (np.median(delays), max(delays), late))
            yield [workers, answers, len(arrivals), *figures]


def main() -> None:
    heads = [f"{n} Gb/s" for n in NETWORKS]
    for engine, batch in (("ZeRO-2", 512), ("FSDP2", 512), ("ZeRO-2", 4096)):
        print(f"\n{engine}, {batch} examples a step: seconds (share that is compute)")
        table(["GPUs", "micro-batches", "compute", *heads], network_rows(engine, batch))
    print("\nA run: 3 epochs, 512 examples a step, 400 Gb/s, 500 problems at 4 points; seconds")
    table(["GPUs", "start", "steps", "saving", "waiting for evaluation", "in all", "GPU hours",
           "share that trains"], run_rows(512))  # fmt: skip
    print("\nStart-up; seconds")
    parts = list(start_up(1))
    table(["GPUs", *parts], ([n, *(f"{s:.0f}" for s in start_up(n).values())] for n in GPUS))
    print("\nPlanner")
    imbalance = ["max/mean tokens", "worst of 5"]
    table(["ranks", "examples a rank", "global batch", "ms a step", *imbalance], planner_rows())
    print("\nEvaluation queue, 512 GPUs, 512 examples a step, every 5 steps; seconds")
    table(["workers", "problems", "requests", "median delay", "worst", "after the last step"],
          queue_rows(512, 512))  # fmt: skip


if __name__ == "__main__":
    main()
