"""What a training step loses to an evaluation beside it; a part of eval_throughput.py."""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sft_dist.evaluation.queue import EvaluationQueue
from sft_dist.tracking.record import read_rows


def compare_steps(
    run_dir: Path, model_dir: Path, placement: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    """One training run: the evaluation of step 0 runs during its first steps, then nothing does."""
    flags = {
        "model_path": model_dir, "data_path": arguments.data_path, "output_dir": run_dir,
        "engine": "torch", "max_steps": 10**6, "num_epochs": 10**5, "warmup_steps": 0,
        "global_batch_size": arguments.global_batch_size, "batch_size": 1,
        "max_seq_length": arguments.max_seq_length, "eval_placement": placement,
        "eval_steps": 10**6, "save_steps": 10**6, "max_eval_samples": arguments.num_problems,
        "generation_max_length": arguments.max_new_tokens, "wandb_mode": "disabled",
    }  # fmt: skip
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", arguments.ranks]
    command = [sys.executable, *map(str, ranks), "-m", "sft_dist.train"]
    command += [f"--{name}={value}" for name, value in flags.items()]
    with (run_dir.parent / f"train-{placement}.log").open("w") as log:
        training = subprocess.Popen(command, stdout=log, stderr=log)
    ended = None
    while training.poll() is None:
        time.sleep(0.2)
        ended = ended or published_at(run_dir)
        if ended and len(steps_after(run_dir, ended)) >= arguments.train_steps:
            (run_dir / "STOP").touch()
    if ended is None:
        sys.exit(f"training ended without an evaluation; see {run_dir.parent}")
    told = (run_dir.parent / f"train-{placement}.log").read_text().splitlines()
    cost = next(line for line in told if "training stood" in line).partition("training stood")
    print(f"{placement}: rank 0 itself:{cost[2]}")
    return report_steps(placement, run_dir, ended) | {"rank 0": cost[2].strip()}


def published_at(run_dir: Path) -> float | None:
    """When the evaluation of step 0 was published; None before that."""
    paths = list(run_dir.glob("evaluations/step-000000/*/completions.jsonl"))
    return paths[0].stat().st_mtime if paths else None


def steps_after(run_dir: Path, moment: float) -> list[dict[str, Any]]:
    """Steps that began a second after `moment`, when the worker has gone to rest."""
    rows = [row for row in read_rows(run_dir) if "perf/step_seconds" in row]
    return [row for row in rows if row["time"] - row["perf/step_seconds"] > moment + 1.0]


def report_steps(placement: str, run_dir: Path, ended: float) -> dict[str, Any]:
    (first,) = [q for q in EvaluationQueue(run_dir).requests() if q.request.step == 0]
    seconds = first.published_facts()["seconds"]
    rows = [row for row in read_rows(run_dir) if "perf/step_seconds" in row and row["step"] > 1]
    within = [
        row for row in rows
        if row["time"] - row["perf/step_seconds"] > ended - seconds and row["time"] < ended
    ]  # fmt: skip
    beside = [row["perf/tokens_per_second"] for row in within]
    alone = [row["perf/tokens_per_second"] for row in steps_after(run_dir, ended)]
    if not beside:
        print(f"{placement}: no whole step fell into the {seconds:.1f} s of decoding; decode more")
        return {"decoding seconds": seconds}
    with_it, without = statistics.median(beside), statistics.median(alone)
    print(
        f"{placement}: training {with_it:,.0f} tokens/s during an evaluation ({len(beside)} steps)"
        f", {without:,.0f} afterwards ({len(alone)} steps): a step takes {without / with_it:.3f} x"
        f"; decoding took {seconds:.1f} s",
        flush=True,
    )
    return {
        "tokens/s during": beside, "tokens/s afterwards": alone,
        "step ratio": without / with_it, "decoding seconds": seconds,
    }  # fmt: skip
