"""One rank of the one-curve test: trains the tiny model by each recipe it is told and notes all.

    torchrun --nproc_per_node 2 tests/engines/curve_worker.py OUT_DIR NAME=JSON ...

Each recipe: {"engine", "stage", "dtype", "max_tokens", "first", "steps", "save", "load",
"mutant"}.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from sft_dist.config import OptimizerConfig
from sft_dist.data.batching import split_global_batch
from sft_dist.data.packing import micro_batches
from sft_dist.data.sampler import BatchPlan
from sft_dist.engines import totals
from sft_dist.engines.deepspeed_engine import DeepSpeedEngine
from sft_dist.engines.ds_config import load_ds_config
from sft_dist.engines.torch_engine import TorchEngine
from sft_dist.model import load_causal_lm
from sft_dist.runtime.distributed import Ranks, distributed
from tests.tiny import tiny_examples, tiny_model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PLAN = BatchPlan(num_examples=37, global_batch_size=8, num_epochs=4, seed=1)


def build(recipe, ranks):
    dtype = recipe.get("dtype", "float32")
    model = tiny_model(dtype=DTYPES[dtype])
    if "load" in recipe:  # weights from the exported directory, as a resumed run takes them
        model = load_causal_lm(recipe["load"], dtype=dtype, attention="sdpa")
    if recipe.get("activation_checkpointing"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    config = OptimizerConfig(learning_rate=1e-3, max_grad_norm=recipe.get("max_grad_norm", 1.0))
    if recipe["engine"] == "torch":
        engine = TorchEngine(model, config, device=ranks.device)
    else:
        engine = build_deepspeed(recipe, model, config, dtype, ranks)
    if "load" in recipe:
        engine.load_state(Path(recipe["load"], "engine"))
    return engine


def build_deepspeed(recipe, model, config, dtype, ranks):
    settings = load_ds_config(f"zero{recipe['stage']}")
    zero = settings["zero_optimization"]
    zero.update({k: 1000 for k in zero if k.endswith("bucket_size")})  # several buckets
    return DeepSpeedEngine(model, config, ds_settings=settings, dtype=dtype, device=ranks.device)


def mutate(recipe, batches, target_tokens, ranks):
    """A fault that AdamW would hide from the parameters: the test must find it in the norms."""
    mutant = recipe.get("mutant")
    if mutant == "scale doubled":
        return batches, target_tokens / 2
    if mutant == "rank dropped" and ranks.rank == ranks.world_size - 1:
        from dataclasses import replace

        return [replace(b, target_weights=0 * b.target_weights) for b in batches], target_tokens
    if mutant == "mean per micro-batch":
        # each micro-batch's mean, averaged over ranks and micro-batches
        from dataclasses import replace

        total = len(batches) * ranks.world_size
        scaled = [
            replace(
                b,
                target_weights=b.target_weights
                * (target_tokens / (total * max(1, b.num_target_tokens))),
            )
            for b in batches
        ]
        return scaled, target_tokens
    return batches, target_tokens


def gradients_of_step_one(engine, result):
    """AdamW's first moment after one step is (1 - beta1) times the clipped gradient."""
    clip = min(1.0, 1.0 / result.grad_norm_preclip)
    return {
        name: (shard.moments["exp_avg"] / (0.1 * clip)).clone() for name, shard in engine._shards()
    }


def full(tensors, engine):
    """Flat shards of all ranks, put together."""
    whole = {}
    for name, parameter in sorted(engine.parameters.items()):
        numel = getattr(parameter, "ds_numel", parameter.numel())
        flat = torch.zeros(numel)
        if name in tensors:
            shard, offset = tensors[name]
            flat[offset : offset + len(shard)] = shard
            if getattr(engine, "stage", 0) == 0 and dist.get_rank() != 0:
                flat.zero_()  # replicated: one rank's copy is enough
        dist.all_reduce(flat)
        whole[name] = flat
    return whole


def run(recipe, ranks):
    examples = tiny_examples()
    engine = build(recipe, ranks)
    record = {"losses": [], "norms": []}
    start = {n: (s.master.clone(), s.offset) for n, s in engine._shards()}
    record["start"] = full(start, engine)
    for step in range(recipe.get("first", 0), recipe["steps"]):
        batch = [examples[i] for i in PLAN.global_batch(step)]
        plan = split_global_batch([len(e) for e in batch], ranks.world_size, recipe["max_tokens"])
        target_tokens = sum(e.num_target_tokens for e in batch)
        batches, scale_tokens = mutate(
            recipe, micro_batches(batch, plan[ranks.rank]), target_tokens, ranks
        )
        before = torch.get_rng_state()
        result = engine.train_step(batches, scale_tokens, 1e-3)
        assert torch.equal(torch.get_rng_state(), before)  # training draws no random number
        assert result.applied
        record["losses"].append(result.loss_sum / target_tokens)
        record["norms"].append(result.grad_norm_preclip)
        if step == 0:
            offsets = {n: s.offset for n, s in engine._shards()}
            moments = gradients_of_step_one(engine, result)
            record["gradients"] = full({n: (m, offsets[n]) for n, m in moments.items()}, engine)
    if "save" in recipe:
        engine.export_weights(Path(recipe["save"]))
        engine.save_state(Path(recipe["save"], "engine"))
    end = {n: (s.master.clone(), s.offset) for n, s in engine._shards()}
    record["end"] = full(end, engine)
    return record


def main():
    out = Path(sys.argv[1])
    with distributed() as ranks:
        assert isinstance(ranks, Ranks)
        assert totals is not None
        for argument in sys.argv[2:]:
            name, _, recipe = argument.partition("=")
            record = run(json.loads(recipe), ranks)
            if ranks.is_zero:
                torch.save(record, out / f"{name}.pt")


if __name__ == "__main__":
    main()
