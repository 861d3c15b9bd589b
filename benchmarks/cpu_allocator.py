"""A CPU's step of the demo's shape with and without `sft_dist.cpu_allocator`, in turns.

    python -m benchmarks.cpu_allocator [--rounds 5] [--shape demo|0.5b]      # prints JSON

Each side of each round is a process of its own: what the C library does as it comes hangs on where
things lie in it.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
from typing import Any

import torch

from benchmarks.gpu_kernels import examples_like_math, model
from benchmarks.lean_layers import SHAPES, split, step
from sft_dist.cpu_allocator import keep_freed_memory
from sft_dist.data.packing import pack
from sft_dist.model import TokenScorer

SIDES = ("kept", "as it comes")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="demo")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--side", choices=SIDES, help="one process: print what it found")
    arguments = parser.parse_args()
    if arguments.side is not None:
        print(json.dumps(one_side(arguments)))
        return
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(arguments.rounds):
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            command = [sys.executable, "-m", "benchmarks.cpu_allocator", f"--side={side}",
                       f"--shape={arguments.shape}", f"--steps={arguments.steps}"]  # fmt: skip
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
    print(json.dumps(found | {"ratio of seconds": ratio(found)}))


def one_side(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step and pages taken in it: medians, after as many that are not counted."""
    torch.set_num_threads(1)
    if arguments.side == "kept":
        keep_freed_memory()
    shape = SHAPES[arguments.shape]
    scorer = TokenScorer(model(shape, "sdpa", torch.float32, torch.device("cpu")))
    batches = [
        pack(split(examples_like_math(shape["tokens"] - 8 * n, shape["vocabulary"])))
        for n in range(4)  # a run's batches differ in size
    ]
    seconds, faults = [], []
    for number in range(2 * arguments.steps):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        seconds.append(step(scorer, batches[number % len(batches)])[0])
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    last = slice(arguments.steps, None)
    return {"seconds": statistics.median(seconds[last]), "pages": statistics.median(faults[last])}


def ratio(found: dict[str, list[dict[str, float]]]) -> float:
    """Of the medians over rounds."""
    kept, usual = (statistics.median(run["seconds"] for run in found[side]) for side in SIDES)
    return kept / usual


if __name__ == "__main__":
    main()
