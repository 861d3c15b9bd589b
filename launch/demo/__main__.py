"""`python -m launch.demo`: a tiny model and a data set, made, trained and evaluated on the spot.

Everything is made under `--output_dir`: `model/`, `data/` and the run itself in `run/`. What an
earlier demo left there is removed first; a directory that no demo made is not touched.

The exit code is 0 when training succeeded and its last step was evaluated. How high the accuracy
got is printed, not judged: in the control run (`--shuffle_answers`) it must stay low.
"""

import argparse
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from launch.demo.model import write_model
from launch.demo.problems import make_problems, write_math_directory

NUM_TRAIN = 8000
NUM_TEST = 256
MADE_BY_DEMO = ".made_by_demo"
"""Marks a directory as one that the demo may remove."""

RECIPE = {
    "ds_config": "zero2",
    "learning_rate": "3e-3",
    "global_batch_size": "64",
    "num_epochs": "4",
    "warmup_steps": "30",
    "max_seq_length": "128",
    "max_tokens_per_microbatch": "8192",
    "eval_backend": "vllm",
    "max_eval_samples": str(NUM_TEST),
    "generation_max_length": "64",
    "wandb_mode": "offline",
    "log_steps": "10",
}
"""Flags of `sft_dist.train`: 500 steps of one micro-batch per rank, evaluated at each epoch's end.

Found by trial; a learning rate of 2e-3 learns later, one of 6e-3 ends less accurate.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; the exit code is 0 only when training succeeded and was evaluated."""
    options = _parse(arguments)
    started = time.monotonic()
    _make_room(options.output_dir)
    make_inputs(options.output_dir, seed=options.seed, shuffle_answers=options.shuffle_answers)
    processes = options.num_processes or default_processes()
    command = training_command(options.output_dir, seed=options.seed, num_processes=processes)
    print("demo:", shlex.join(command), flush=True)
    # As torchrun would set it for several processes, with lines about it.
    threads = {"OMP_NUM_THREADS": "1"} if processes > 1 else {}
    environment = {**threads, **os.environ}
    exit_code = subprocess.run(command, check=False, env=environment).returncode
    run_dir = options.output_dir / "run"
    if exit_code != 0:
        print(f"demo: FAILED: training ended with exit code {exit_code}, see {run_dir / 'logs'}")
        return exit_code
    summary = summarize(read_metrics(run_dir / "metrics.jsonl"))
    if summary is None:
        print(f"demo: FAILED: {run_dir / 'metrics.jsonl'} has no accuracy of the last step")
        return 1
    print(summary)
    print(f"demo: {time.monotonic() - started:.0f} seconds after installation; look at "
          f"{run_dir / 'report.html'}")  # fmt: skip
    return 0


def default_processes() -> int:
    """Two ranks, so that something is sharded; on GPUs no more than there are."""
    import torch

    return min(2, torch.cuda.device_count()) if torch.cuda.is_available() else 2


def training_dtype() -> str:
    """bfloat16 on a GPU, float32 on any CPU.

    The demo's products are too small for a CPU's instructions for bfloat16 to show: half the
    tokens/s of float32 where there are some (`docs/experiments.md`), less where there are none.
    """
    import torch

    return "bfloat16" if torch.cuda.is_available() else "float32"


def make_inputs(output_dir: Path, *, seed: int, shuffle_answers: bool) -> None:
    """Write `model/` and `data/` under `output_dir`, both from the one seed."""
    write_model(output_dir / "model", seed)
    train, test = make_problems(
        seed, num_train=NUM_TRAIN, num_test=NUM_TEST, shuffle_answers=shuffle_answers
    )
    write_math_directory(output_dir / "data", train, test=test)
    print(f"demo: made {len(train)} training and {len(test)} test problems, for example")
    print(f"demo:   {test[0]['problem']}\ndemo:   {test[0]['solution']}")


def training_command(output_dir: Path, *, seed: int, num_processes: int) -> list[str]:
    """Return the torchrun command line that trains on what `make_inputs` wrote."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(num_processes)]
    steps_per_epoch = math.ceil(NUM_TRAIN / int(RECIPE["global_batch_size"]))
    flags = {
        "model_path": output_dir / "model",
        "data_path": output_dir / "data",
        "output_dir": output_dir / "run",
        "seed": seed,
        "eval_steps": steps_per_epoch,
        "save_steps": steps_per_epoch,
        "dtype": training_dtype(),
        **RECIPE,
    }
    pairs = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    return [sys.executable, "-m", *launcher, "-m", "sft_dist.train", *pairs]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's `metrics.jsonl`; none when training did not come that far."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def summarize(rows: list[dict[str, Any]]) -> str | None:
    """Return a line on loss and accuracy, or None when no loss or no last accuracy was logged.

    The last row of a step is the one that counts.
    """
    losses = {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}
    accuracies = {row["eval/step"]: row["eval/accuracy"] for row in rows if "eval/accuracy" in row}
    if not losses or max(accuracies, default=0) < max(losses):
        return None
    first, last = min(losses), max(losses)
    untrained = min(accuracies)
    return (
        f"demo: loss {losses[first]:.3f} -> {losses[last]:.3f}, held-out problems solved "
        f"{accuracies[untrained]:.1%} -> {accuracies[last]:.1%} (steps {untrained} -> {last})"
    )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m launch.demo", description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/demo"))
    parser.add_argument("--seed", type=int, default=0, help="of model, problems, data order")
    parser.add_argument("--shuffle_answers", action="store_true", help="the control run")
    parser.add_argument(
        "--num_processes", type=int, help="ranks; unset: 2 on the CPU, else one a GPU, at most 2"
    )
    return parser.parse_args(arguments)


def _make_room(output_dir: Path) -> None:
    """Remove an earlier demo; refuse any other directory that has something in it."""
    marker = output_dir / MADE_BY_DEMO
    if output_dir.is_dir() and any(output_dir.iterdir()):
        if not marker.is_file():
            raise SystemExit(
                f"--output_dir: expected an empty directory or one of an earlier demo, found other "
                f"files in {output_dir}; choose another directory"
            )
        shutil.rmtree(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    marker.touch()


if __name__ == "__main__":
    sys.exit(main())
