"""One rank of test_non_finite.py: every engine meets a bad loss and a bad gradient.

torchrun --nproc_per_node 2 tests/engines/non_finite_worker.py OUT.json
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from sft_dist.data.batching import split_global_batch
from sft_dist.data.packing import micro_batches
from sft_dist.engines.fsdp_engine import FsdpEngine
from sft_dist.errors import NonFiniteError
from sft_dist.runtime.distributed import distributed
from tests.engines.curve_worker import build
from tests.tiny import tiny_examples

RECIPES = {
    **{
        f"{engine} {dtype}": {"engine": engine, "dtype": dtype}
        for engine in ("torch", "fsdp")
        for dtype in ("float32", "bfloat16")
    },
    **{
        f"zero{stage} {dtype}": {"engine": "deepspeed", "stage": stage, "dtype": dtype}
        for stage in range(4)
        for dtype in ("float32", "bfloat16")
    },
}


def masters(engine):
    return {name: shard.master.clone() for name, shard in engine._shards()}


def unchanged(engine, before):
    return all(torch.equal(shard.master, before[name]) for name, shard in engine._shards())


def bad_loss(engine, batches, rank):
    """Rank 1's second micro-batch has a loss that is not a number."""
    if rank == 1:
        bad = replace(batches[1], target_weights=batches[1].target_weights * float("nan"))
        batches = [batches[0], bad, *batches[2:]]
    before = masters(engine)
    try:
        engine.train_step(batches, 100, 1e-3)
    except NonFiniteError as error:
        return {"message": str(error), "unchanged": unchanged(engine, before)}
    return {"message": None, "unchanged": unchanged(engine, before)}


def embedding(engine):
    """The tensor whose gradient autograd computes; FSDP's parameters are shards of it."""
    if not isinstance(engine, FsdpEngine):
        return next(iter(engine.parameters.values()))
    engine.module.unshard()
    whole = engine.module.causal_lm.get_input_embeddings().weight
    engine.module.reshard()
    return whole


def bad_gradient(engine, batches, rank):
    """The loss is finite, rank 1's gradient of one parameter is not."""
    parameter = embedding(engine)  # on both ranks: FSDP gathers it
    if rank == 1:
        parameter.register_hook(lambda gradient: gradient * float("inf"))
    before = masters(engine)
    result = engine.train_step(batches, 100, 1e-3)
    return {"applied": result.applied, "unchanged": unchanged(engine, before)}


def main():
    found = {}
    with distributed() as ranks:
        examples = tiny_examples(8)
        plan = split_global_batch([len(e) for e in examples], ranks.world_size, 60)
        mine = micro_batches(examples, plan[ranks.rank])
        for name, recipe in RECIPES.items():
            found[name] = {
                "loss": bad_loss(build(recipe, ranks), mine, ranks.rank),
                "gradient": bad_gradient(build(recipe, ranks), mine, ranks.rank),
                "ids": [i for batch in mine[1:2] for i in batch.example_ids],
            }
        path = Path(f"{sys.argv[1]}.{ranks.rank}")
        path.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
