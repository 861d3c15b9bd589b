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
        for stage in (0, 1, 2, 3, "2_offload_optimizer", "3_offload_optimizer")
        for dtype in ("float32", "bfloat16")
    },
}


def state(engine):
    """Masters, moments and AdamW's own count of steps, of this rank."""
    found = {"steps": torch.tensor(engine.optimizer_state().adam_step)}
    for name, shard in engine._shards():
        found[name] = shard.master.clone()
        found |= {f"{name} {kind}": moment.clone() for kind, moment in shard.moments.items()}
    return found


def unchanged(engine, before):
    after = state(engine)
    return all(torch.equal(after[name], before[name]) for name in before)


def bad_loss(engine, batches, rank, spoil):
    """Rank 1's second micro-batch has a loss that is not finite, after a good step."""
    engine.train_step(batches, 100, 1e-3)
    before = state(engine)
    bad = [batches[0], spoil(batches[1]), *batches[2:]] if rank == 1 else batches
    result = engine.train_step(bad, 100, 1e-3)
    outcome = {"message": result.culprits, "applied": result.applied}
    outcome["unchanged"] = unchanged(engine, before)
    engine.train_step(batches, 100, 1e-3)
    return outcome, state(engine)


def weightless(batch):
    """NaN in the loss, and in its gradient."""
    return replace(batch, target_weights=batch.target_weights * float("nan"))


def overweight(batch):
    """An infinite loss: that of one token is, by its weight."""
    weights = batch.target_weights.clone()
    weights[0] = float("inf")
    return replace(batch, target_weights=weights)


def two_good_steps(engine, batches):
    for _ in range(2):
        engine.train_step(batches, 100, 1e-3)
    return state(engine)


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
    before = state(engine)
    result = engine.train_step(batches, 100, 1e-3)
    return {"applied": result.applied, "unchanged": unchanged(engine, before)}


def main():
    found = {}
    with distributed() as ranks:
        examples = tiny_examples(8)
        plan = split_global_batch([len(e) for e in examples], ranks.world_size, 60)
        mine = micro_batches(examples, plan[ranks.rank])
        for name, recipe in RECIPES.items():
            spoil = overweight if "torch" in name else weightless
            loss, skipped = bad_loss(build(recipe, ranks), mine, ranks.rank, spoil)
            good = two_good_steps(build(recipe, ranks), mine)
            found[name] = {
                "loss": loss,
                "as if it had not been": all(torch.equal(skipped[key], good[key]) for key in good),
                "gradient": bad_gradient(build(recipe, ranks), mine, ranks.rank),
                "ids": [i for batch in mine[1:2] for i in batch.example_ids],
            }
        path = Path(f"{sys.argv[1]}.{ranks.rank}")
        path.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
