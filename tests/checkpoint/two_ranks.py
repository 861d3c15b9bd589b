"""One of two ranks that save together; writes what it saw to OUT/rank-N.json.

torchrun --nproc_per_node 2 -m tests.checkpoint.two_ranks OUT
"""

import errno
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist

from sft_dist import snapshot_files
from sft_dist.checkpoint import damage, list_checkpoints
from sft_dist.config import from_flat
from sft_dist.errors import CheckpointError
from sft_dist.optimizer_state import MOMENTS, OptimizerState, ParameterShard, load_optimizer_state
from sft_dist.runtime.distributed import any_ranks, distributed
from sft_dist.saving import Saving
from tests.checkpoint.fakes import STATE, entries
from tests.fake_engine import FakeEngine, FakeTokenizer

SIZE = 1000


class HalfEngine(FakeEngine):
    """Each rank has half of one parameter's optimizer state."""

    def __init__(self, rank):
        super().__init__()
        self.rank = rank
        self.half = [torch.zeros(SIZE // 2) for _ in range(3)]

    def set(self, value):
        self.steps = value
        for number, tensor in enumerate(self.half):
            tensor.fill_(value + 0.25 * number)

    def weights(self):
        yield "model.weight", self.weight if self.rank == 0 else None

    def optimizer_state(self):
        master, *moments = self.half
        shard = ParameterShard(
            self.rank * SIZE // 2, SIZE, master, dict(zip(MOMENTS, moments, strict=True))
        )
        return OptimizerState({"w": shard}, self.steps)


def failing(code):
    def write(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    return write


def fault_of(work):
    try:
        work()
    except CheckpointError as error:
        return str(error)
    return None


def make(ranks, run_dir, **settings):
    engine = HalfEngine(ranks.rank)
    evaluations = SimpleNamespace(submit=lambda step, path: None)
    lost = []
    saving = Saving(
        from_flat(settings), engine=engine, tokenizer=FakeTokenizer(), num_parameters=4,
        ranks=ranks, run_dir=run_dir, evaluations=evaluations, on_lost_evaluation=lost.append,
    )  # fmt: skip
    return engine, saving, lost


def save(engine, saving, step, *, wait=True):
    engine.set(step)
    saving.checkpoint(replace(STATE, step=step), evaluate=False, known=lambda: ((), {}))
    if wait:
        saving.settle()


def beside_training(ranks, run_dir):
    """Collectives of training while rank 1's disk is slow: neither waits for the other."""
    engine, saving, _ = make(ranks, run_dir)
    write = snapshot_files.save_optimizer_state

    def slow(*args, **kwargs):
        time.sleep(2.0 if ranks.rank == 1 else 0)
        write(*args, **kwargs)

    snapshot_files.save_optimizer_state = slow
    try:
        began = time.monotonic()
        save(engine, saving, 3, wait=False)
        rounds = 0
        while any_ranks([not saving._background.has_ended], ranks.device)[0]:
            rounds += 1
            engine.set(100 + rounds)
        longest = time.monotonic() - began
        saving.settle()
    finally:
        snapshot_files.save_optimizer_state = write
    return {"rounds": rounds, "seconds": longest, "stall": saving.stall_seconds}


def stored(ranks, path):
    """Read back on one rank's terms: both halves, as a run of other shards would."""
    whole = ParameterShard(0, SIZE, torch.empty(SIZE), {k: torch.empty(SIZE) for k in MOMENTS})
    adam_step = load_optimizer_state(path / "engine", {"w": whole})
    values = [sorted(set(t.tolist())) for t in (whole.master, *whole.moments.values())]
    return {"adam_step": adam_step, "values": values, "damage": damage(path)}


def one_rank_cannot_write(ranks, run_dir, failing_rank):
    engine, saving, _ = make(ranks, run_dir)
    save(engine, saving, 3)
    write = snapshot_files.save_optimizer_state
    if ranks.rank == failing_rank:
        snapshot_files.save_optimizer_state = lambda directory, state, group: write(
            directory, Broken(state), group=group
        )
    save(engine, saving, 6, wait=False)
    fault = fault_of(saving.settle)
    snapshot_files.save_optimizer_state = write
    save(engine, saving, 9)
    return {"fault": fault, "entries": [p.name for p in list_checkpoints(run_dir)]}


class Broken:
    """A state whose writing fails in the middle of DCP's collectives."""

    def __init__(self, state):
        self.adam_step = state.adam_step
        shard = state.shards["w"]
        self.shards = {"w": replace(shard, master=Unwritable(shard.master))}


class Unwritable(torch.Tensor):
    def detach(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def an_export_fails(ranks, run_dir):
    engine, saving, lost = make(ranks, run_dir, on_save_error="continue")
    export = snapshot_files.export_causal_lm
    snapshot_files.export_causal_lm = failing(errno.ENOSPC)
    saving.export(replace(STATE, step=5))
    while not any_ranks([saving.has_failed()], ranks.device)[0]:  # as the loop asks at each step
        time.sleep(0.01)
    saving.settle()
    snapshot_files.export_causal_lm = export
    save(engine, saving, 6)
    saving.finish()
    return {"lost": lost, "entries": entries(run_dir)}


def main():
    out = Path(sys.argv[1])
    with distributed() as ranks:
        seen = {"beside": beside_training(ranks, out / "a")}
        dist.barrier()
        seen["stored"] = stored(ranks, out / "a" / "checkpoint-3")
        for rank in (0, 1):
            seen[f"failing {rank}"] = one_rank_cannot_write(ranks, out / f"b{rank}", rank)
        seen["export"] = an_export_fails(ranks, out / "c")
        (out / f"rank-{ranks.rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
