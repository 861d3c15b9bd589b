"""One rank of the one-curve test: trains the tiny model by each recipe and notes all.

    torchrun --nproc_per_node 2 tests/engines/curve_worker.py OUT_DIR on

What so many ranks train is said by the function of `curve_recipes.py` that is named: `on`, or
`literal_budgets`. Each recipe: {"engine", "stage" (DeepSpeed), "whole_in_step" (FSDP), "dtype",
"initializer_range", "longest", "max_tokens", "packing", "normalization", "first", "steps", "save",
"load", "activation_checkpointing", "max_grad_norm", "mutant"}.
Checkpoints are saved to and loaded from `OUT_DIR/checkpoints`, by name.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from sft_dist.checkpoint import take_snapshot
from sft_dist.config import OptimizerConfig
from sft_dist.data.batching import split_global_batch
from sft_dist.data.packing import micro_batches
from sft_dist.data.sampler import BatchPlan
from sft_dist.engines.deepspeed_engine import DeepSpeedEngine
from sft_dist.engines.ds_config import load_ds_config
from sft_dist.engines.fsdp_engine import FsdpEngine
from sft_dist.engines.torch_engine import TorchEngine
from sft_dist.model import export_causal_lm, load_causal_lm
from sft_dist.normalization import LossNormalization
from sft_dist.optimizer_state import save_optimizer_state
from sft_dist.runtime.distributed import distributed
from tests.engines import curve_recipes
from tests.tiny import tiny_examples, tiny_model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# The last batch of each of the four epochs has one example: fewer than ranks.
PLAN = BatchPlan(num_examples=33, global_batch_size=8, num_epochs=4, seed=1)


def build(recipe, ranks, checkpoints=Path()):
    dtype = recipe.get("dtype", "float32")
    if "load" in recipe:  # weights from the exported directory, as a resumed run takes them
        checkpoint = checkpoints / recipe["load"]
        model = load_causal_lm(str(checkpoint), dtype=dtype, attention="sdpa")
    else:
        spread = recipe.get("initializer_range", 0.2)
        model = tiny_model(dtype=DTYPES[dtype], initializer_range=spread)
    if recipe.get("activation_checkpointing"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    config = OptimizerConfig(learning_rate=1e-3, max_grad_norm=recipe.get("max_grad_norm", 1.0))
    engine = BUILDERS[recipe["engine"]](recipe, model, config, dtype, ranks)
    if "load" in recipe:
        engine.load_state(checkpoint / "engine")
    return engine


def build_torch(recipe, model, config, dtype, ranks):
    return TorchEngine(model, config, device=ranks.device)


def build_fsdp(recipe, model, config, dtype, ranks):
    whole = recipe.get("whole_in_step", True)
    return FsdpEngine(model, config, device=ranks.device, whole_in_step=whole)


def build_deepspeed(recipe, model, config, dtype, ranks):
    settings = load_ds_config(f"zero{recipe['stage']}")
    zero = settings["zero_optimization"]
    zero.update({k: 20_000 for k in zero if k.endswith("bucket_size")})  # several buckets
    return DeepSpeedEngine(model, config, ds_settings=settings, dtype=dtype, device=ranks.device)


BUILDERS = {"torch": build_torch, "fsdp": build_fsdp, "deepspeed": build_deepspeed}


def mutate(recipe, batches, normalizer, ranks):
    """A fault that AdamW would hide from the parameters: the test must find it in the norms."""
    mutant = recipe.get("mutant")
    if mutant == "scale doubled":
        return batches, normalizer / 2
    if mutant == "rank dropped" and ranks.rank == ranks.world_size - 1:
        return [replace(b, target_weights=0 * b.target_weights) for b in batches], normalizer
    if mutant == "mean per micro-batch":
        # each micro-batch's mean, averaged over ranks and micro-batches
        total = len(batches) * ranks.world_size
        factors = [normalizer / (total * max(1, b.num_target_tokens)) for b in batches]
        return [
            replace(b, target_weights=b.target_weights * factor)
            for b, factor in zip(batches, factors, strict=True)
        ], normalizer
    return batches, normalizer


def gradients_of_step_one(engine, result):
    """AdamW's first moment after one step is (1 - beta1) times the clipped gradient."""
    clip = min(1.0, 1.0 / result.grad_norm_preclip)
    return {
        name: (shard.moments["exp_avg"] / (0.1 * clip), shard.offset)
        for name, shard in engine._shards()
    }


def is_replicated(engine):
    """Whether every rank holds all of the optimizer state."""
    return isinstance(engine, TorchEngine) or getattr(engine, "stage", None) == 0


def full(tensors, engine):
    """Flat shards of all ranks, put together."""
    whole = {}
    for name, parameter in sorted(engine.parameters.items()):
        numel = getattr(parameter, "ds_numel", parameter.numel())
        flat = torch.zeros(numel)
        # replicated: one rank's copy is enough
        if name in tensors and not (is_replicated(engine) and dist.get_rank() != 0):
            shard, offset = tensors[name]
            flat[offset : offset + len(shard)] = shard
        dist.all_reduce(flat)
        whole[name] = flat
    return whole


def masters(engine):
    return full({n: (shard.master, shard.offset) for n, shard in engine._shards()}, engine)


def step_of(recipe, examples, step, ranks):
    """This rank's micro-batches of a step, and what the loss is divided by."""
    normalization = LossNormalization(**recipe.get("normalization", {}))
    batch = [examples[i] for i in PLAN.global_batch(step)]
    plan = split_global_batch([len(e) for e in batch], ranks.world_size, recipe["max_tokens"])
    mine = micro_batches(
        batch,
        plan[ranks.rank],
        normalization=normalization,
        packing=recipe.get("packing", True),
    )
    target_tokens = sum(e.num_target_tokens for e in batch)
    return mine, normalization.normalizer(num_examples=len(batch), num_target_tokens=target_tokens)


def run(recipe, ranks, checkpoints=Path()):
    examples = tiny_examples(longest=recipe.get("longest", 60))
    engine = build(recipe, ranks, checkpoints)
    record = {"losses": [], "norms": [], "start": masters(engine)}
    for step in range(recipe.get("first", 0), recipe["steps"]):
        batches, normalizer = step_of(recipe, examples, step, ranks)
        before = torch.get_rng_state()
        result = engine.train_step(*mutate(recipe, batches, normalizer, ranks), 1e-3)
        assert torch.equal(torch.get_rng_state(), before)  # training draws no random number
        assert result.applied
        record["losses"].append(result.objective_sum / normalizer)
        record["norms"].append(result.grad_norm_preclip)
        if step == 0:
            record["gradients"] = full(gradients_of_step_one(engine, result), engine)
    if "save" in recipe:
        save(engine, checkpoints / recipe["save"])
    record["end"] = masters(engine)
    return record


def save(engine, directory):
    """Weights and optimizer state as a checkpoint holds them."""
    snapshot = take_snapshot(engine, None)
    if dist.get_rank() == 0:
        export_causal_lm(
            engine.causal_lm, snapshot.weights, directory, weights_format="safetensors"
        )
    save_optimizer_state(directory / "engine", snapshot.optimizer)


def main():
    out, recipes = Path(sys.argv[1]), getattr(curve_recipes, sys.argv[2])
    with distributed() as ranks:
        for name, recipe in recipes(ranks.world_size).items():
            record = run(recipe, ranks, out / "checkpoints")
            if ranks.is_zero:
                torch.save(record, out / f"{name} on {ranks.world_size}.pt")


if __name__ == "__main__":
    main()
