"""One run on 2, 1, 2 and 4 ranks, stopped in between, against the unbroken run on 2.

    python -m tests.faults.elastic_run [zero2 fsdp engines zero3] [--directory DIRECTORY]

Real processes in float32. Every stop is another one: a signal to the launcher, a STOP file, SIGUSR1
to one rank. Printed for each chain: the steps where it was cut, and how far it is from the unbroken
run. Exits 1 when that is more than rounding.
"""

import argparse
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file

from sft_dist.checkpoint import damage, list_checkpoints
from tests.end_to_end.runs import losses, norms, on_ranks, run, wait_for
from tests.faults.tiny_runs import (
    ended,
    launched,
    make_inputs,
    rank_processes,
    status,
    tail,
)

SETTINGS = {
    "dtype": "float32",
    "global_batch_size": 16,  # 6 steps an epoch, the last of 10 examples
    "num_epochs": 3,
    "max_steps": 16,
    "batch_size": 1,  # many micro-batches, and steps long enough to stop between two of them
    "max_seq_length": 128,
    "learning_rate": 3e-3,
    "warmup_steps": 2,
    "save_steps": 100,
    "eval_placement": "off",
}
ZERO2 = {"engine": "deepspeed", "ds_config": "zero2"}
ZERO3 = {"engine": "deepspeed", "ds_config": "zero3"}
FSDP, TORCH = {"engine": "fsdp"}, {"engine": "torch"}
STOP_AFTER = (3, 7, 11)
"""Steps that are done when the three stops are asked for."""

CHAINS = {
    "zero2": [(2, ZERO2), (1, ZERO2), (2, ZERO2), (4, ZERO2)],
    "zero3": [(2, ZERO3), (1, ZERO3), (2, ZERO3), (4, ZERO3)],
    "fsdp": [(2, FSDP), (1, FSDP), (2, FSDP), (4, FSDP)],
    "engines": [(2, ZERO2), (1, TORCH), (3, FSDP), (4, ZERO3)],
}
"""Name -> (ranks, engine) of each part of the run; the first engine is that of the unbroken one."""
CURVE_TOLERANCE, CHANGE_TOLERANCE = 1e-4, 1e-3


@dataclass(frozen=True)
class Deviation:
    """How far a broken run is from the unbroken one, relative."""

    cuts: list[int]
    loss: float
    norm: float
    change: float

    def is_rounding(self):
        return max(self.loss, self.norm) <= CURVE_TOLERANCE and self.change <= CHANGE_TOLERANCE


def ask_launcher(launcher, run_dir):
    launcher.send_signal(signal.SIGTERM)


def ask_by_file(launcher, run_dir):
    (run_dir / "STOP").write_text("another number of ranks\n")


def ask_last_rank(launcher, run_dir):
    ranks = rank_processes(launcher)
    os.kill(ranks[max(ranks)].pid, signal.SIGUSR1)


STOPS = (ask_launcher, ask_by_file, ask_last_rank)


def unbroken(inputs, run_dir, chain):
    ranks, engine = CHAINS[chain][0]
    run(on_ranks(ranks), **inputs, **SETTINGS, **engine, output_dir=run_dir)


def broken(inputs, run_dir, chain):
    """The steps after which the run was stopped."""
    *parts, (last_ranks, last_engine) = CHAINS[chain]
    cuts = []
    for (ranks, engine), after, ask in zip(parts, STOP_AFTER, STOPS, strict=True):
        settings = {"resume_from_checkpoint": "latest"} if cuts else {**inputs, **SETTINGS}
        launcher = launched(on_ranks(ranks), run_dir, **settings, **engine)
        try:
            wait_for(lambda after=after: after in losses(run_dir), launcher)
            ask(launcher, run_dir)
        finally:
            ended(launcher, run_dir)
        cuts.append(stopped_at(run_dir))
    run(on_ranks(last_ranks), resume_from_checkpoint="latest", output_dir=run_dir, **last_engine)
    return cuts


def stopped_at(run_dir):
    """The step of the newest checkpoint, which must be that of the stop, and no end."""
    assert status(run_dir)["state"] == "requeue", tail(run_dir)
    newest = list_checkpoints(run_dir)[-1]
    assert not damage(newest)
    step = int(newest.name.rpartition("-")[2])
    assert step == max(losses(run_dir)) < SETTINGS["max_steps"]
    return step


def relative(mine, expected):
    """The largest relative difference of two curves that have the same steps."""
    assert list(mine) == list(expected) == list(range(1, SETTINGS["max_steps"] + 1))
    return max(abs(mine[step] / expected[step] - 1) for step in expected)


def change_deviation(start, mine, expected):
    """Norm of the difference of two models, relative to how far training has moved the weights."""
    begun, here, there = (load_file(path / "model.safetensors") for path in (start, mine, expected))
    apart = sum((here[name] - there[name]).double().square().sum() for name in there)
    moved = sum((there[name] - begun[name]).double().square().sum() for name in there)
    return float((apart / moved).sqrt())


def compared(inputs, run_dir, whole, cuts):
    last = f"checkpoint-{SETTINGS['max_steps']}"
    return Deviation(
        cuts,
        loss=relative(losses(run_dir), losses(whole)),
        norm=relative(norms(run_dir), norms(whole)),
        change=change_deviation(inputs["model_path"], run_dir / last, whole / last),
    )


def deviation(inputs, directory, chain):
    """Run a chain and its unbroken run in `directory`."""
    whole, run_dir = directory / f"{chain}-whole", directory / f"{chain}-broken"
    unbroken(inputs, whole, chain)
    return compared(inputs, run_dir, whole, broken(inputs, run_dir, chain))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chains", nargs="*", default=list(CHAINS))
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    directory = options.directory or Path(tempfile.mkdtemp(prefix="elastic-"))
    inputs = make_inputs(directory)
    print("| chain | ranks | stopped after | loss | gradient norm | change of the weights |")
    print("|---|---|---|---|---|---|")
    all_rounding = True
    for chain in options.chains:
        ranks = " → ".join(str(number) for number, _ in CHAINS[chain])
        found = deviation(inputs, directory, chain)
        cuts = ", ".join(map(str, found.cuts))
        print(f"| {chain} | {ranks} | {cuts} | {found.loss:.1e} | {found.norm:.1e} | "
              f"{found.change:.1e} |", flush=True)  # fmt: skip
        all_rounding = all_rounding and found.is_rounding()
    sys.exit(0 if all_rounding else 1)


if __name__ == "__main__":
    main()
