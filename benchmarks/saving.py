"""How long training stands still for a checkpoint: synchronous, asynchronous, against a copy.

    torchrun --nproc_per_node 2 benchmarks/saving.py --model MODEL_DIR --out DIR [--saves 5]

Prints one JSON object: seconds (median over the saves) of

* `copy`: the state copied tensor by tensor into memory that is there already;
* `sync`, `first`, `async`: the stall of a synchronous save, of the first asynchronous one, of the
  later ones (each begins when the former is written);
* `write`: how long the thread beside training took;
* `step`, `step_beside`: a training step with nothing else, and while a save is written.
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from sft_dist.checkpoint import take_snapshot
from sft_dist.config import TrainConfig, from_flat
from sft_dist.data.batching import split_global_batch
from sft_dist.data.packing import MicroBatch, micro_batches
from sft_dist.data.tokenization import TokenizedExample
from sft_dist.engines.build import build_engine, load_model
from sft_dist.model import load_tokenizer
from sft_dist.runtime.distributed import Ranks, distributed
from sft_dist.saving import Saving
from sft_dist.train_state import TrainState

STATE = TrainState(
    seed=0, global_batch_size=8, num_examples=8, data_fingerprint="f", wandb_run_id="w"
)


def timed(work: Callable[[], Any]) -> float:
    dist.barrier()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def batches(ranks: Ranks, tokens: int) -> tuple[list[MicroBatch], float]:
    """Eight examples of random tokens, the same at every step."""
    rng = np.random.default_rng(0)
    examples = [
        TokenizedExample(f"x/{i}", rng.integers(0, 300, tokens), tokens // 2) for i in range(8)
    ]
    plan = split_global_batch([tokens] * 8, ranks.world_size, 4 * tokens)
    return micro_batches(examples, plan[ranks.rank]), sum(e.num_target_tokens for e in examples)


class Bench:
    """An engine, and savers of both kinds."""

    def __init__(self, arguments: argparse.Namespace, ranks: Ranks) -> None:
        self.arguments, self.ranks, self.number = arguments, ranks, 0
        config = self.config(async_save=True)
        model = load_model(config, Path(arguments.model), device=ranks.device, stop_token_id=0)
        self.num_parameters = sum(p.numel() for p in model.parameters())
        self.engine = build_engine(config, model, device=ranks.device)
        self.micro_batches, self.normalizer = batches(ranks, arguments.tokens)
        self.tokenizer = load_tokenizer(arguments.model)

    def config(self, *, async_save: bool) -> TrainConfig:
        """Settings of a run that saves so."""
        names = {"model_path": self.arguments.model, "data_path": "none"}
        flags = {"engine": self.arguments.engine, "keep_last_n_checkpoints": 1}
        return from_flat({**names, **flags, "async_save": async_save})

    def saver(self, *, async_save: bool) -> Saving:
        """Saves of the engine; nothing is evaluated."""
        return Saving(
            self.config(async_save=async_save),
            engine=self.engine,
            tokenizer=self.tokenizer,
            num_parameters=self.num_parameters,
            ranks=self.ranks,
            run_dir=Path(self.arguments.out),
            evaluations=SimpleNamespace(submit=lambda step, path: None),  # type: ignore[arg-type]
            on_lost_evaluation=lambda step: None,
        )

    def step(self) -> None:
        """One update, always from the same examples."""
        self.engine.train_step(self.micro_batches, self.normalizer, 1e-5)

    def steps(self, count: int) -> list[float]:
        """Seconds of steps with nothing beside them."""
        return [timed(self.step) for _ in range(count)]

    def save(self, saver: Saving) -> float:
        """Seconds that training stands still."""
        self.number += 1
        state = replace(STATE, step=self.number)
        return timed(lambda: saver.checkpoint(state, evaluate=False, known=lambda: ((), {})))

    def copies(self, count: int) -> list[float]:
        """Into memory that was touched before: what a save cannot do without."""
        snapshot = take_snapshot(self.engine, None)
        tensors = list(snapshot.weights.values())
        assert snapshot.optimizer is not None
        for shard in snapshot.optimizer.shards.values():
            tensors += [shard.master, *shard.moments.values()]
        places = [torch.zeros_like(t, device="cpu") for t in tensors]

        def copy() -> None:
            for place, tensor in zip(places, tensors, strict=True):
                place.copy_(tensor)

        return [timed(copy) for _ in range(count)]

    def beside(self, saver: Saving, count: int) -> tuple[list[float], list[float], list[float]]:
        """Stalls, times of writing, and times of the steps that a save was written beside."""
        stalls, writes, steps = [], [], []
        for _ in range(count):
            stalls.append(self.save(saver))
            began = time.perf_counter()
            while self._busy(saver):
                steps.append(timed(self.step))
            writes.append(time.perf_counter() - began)
            saver.settle()
        return stalls, writes, steps

    def _busy(self, saver: Saving) -> bool:
        found = torch.tensor(int(not saver._background.has_ended), device=self.ranks.device)
        dist.all_reduce(found, op=dist.ReduceOp.MIN)
        return bool(found)


def measure(bench: Bench, saves: int, steps_alone: int) -> dict[str, Any]:
    bench.steps(3)
    alone = bench.steps(steps_alone)
    copies = bench.copies(saves)
    synchronous = bench.saver(async_save=False)
    sync = [bench.save(synchronous) for _ in range(saves)]
    beside = bench.saver(async_save=True)
    bench.steps(2)  # as a run has some before its first save
    first = bench.save(beside)
    beside.settle()
    stalls, writes, steps = bench.beside(beside, saves)
    return {
        "step": statistics.median(alone),
        "copy": statistics.median(copies),
        "sync": statistics.median(sync),
        "first": first,
        "async": statistics.median(stalls),
        "write": statistics.median(writes),
        "step_beside": statistics.median(steps) if steps else None,
        "all_async": stalls,
        "all_copies": copies,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--engine", default="deepspeed")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="with nothing beside them")
    arguments = parser.parse_args()
    with distributed() as ranks:
        found = measure(Bench(arguments, ranks), arguments.saves, arguments.steps)
        if ranks.is_zero:
            shutil.rmtree(arguments.out, ignore_errors=True)
            json.dump(found, sys.stdout, indent=1)
            print()


if __name__ == "__main__":
    main()
