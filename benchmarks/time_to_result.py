"""From the command to the last graded accuracy: ours and the plain way, by phase.

    python -m benchmarks.time_to_result [--rounds 2] [--output R.json]                  # the demo
    python -m benchmarks.time_to_result --model_path MODEL --data_path MATH --num_problems 32 ...

Both sides train the same number of epochs of the same examples with the same global batches, rate
and schedule on as many ranks, and score the base model and each epoch's end with vLLM. The plain
way (`plain_way.py`) pads, saves and evaluates while training waits, with a new engine each time.
Rounds alternate; every run is cold but for the page cache: ours gets an empty `--cache_dir`, which
`--warm` keeps for the next rounds.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.throughput_machine import describe_machine
from launch.demo.__main__ import RECIPE, make_inputs
from sft_dist.tracking.record import read_rows

SIDES = ("ours", "plain")
PATHS = ("model_path", "data_path", "dir", "output")
"""Arguments recorded by their last name: where they lay says nothing."""


def main() -> None:
    arguments = parser().parse_args()
    directory = Path(arguments.dir or tempfile.mkdtemp(prefix="time-to-result-"))
    if arguments.model_path is None:
        make_inputs(directory, seed=0, shuffle_answers=False)
        arguments.model_path, arguments.data_path = directory / "model", directory / "data"
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number in range(arguments.rounds):
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            place = directory / f"{side}-{number}"
            place.mkdir()
            found = (ours if side == "ours" else plain)(place, arguments)
            runs[side].append(found)
            print(f"{side}, round {number}: {told(found)}", flush=True)
    report(runs, arguments)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--model_path", help="default: the demo's model and problems, made here")
    made.add_argument("--data_path")
    made.add_argument("--rounds", type=int, default=2)
    made.add_argument("--ranks", type=int, default=2)
    made.add_argument("--num_epochs", type=int, default=int(RECIPE["num_epochs"]))
    made.add_argument("--global_batch_size", type=int, default=int(RECIPE["global_batch_size"]))
    made.add_argument("--batch_size", type=int, default=32, help="examples of a padded batch")
    made.add_argument("--learning_rate", type=float, default=float(RECIPE["learning_rate"]))
    made.add_argument("--warmup_steps", type=int, default=int(RECIPE["warmup_steps"]))
    made.add_argument("--max_seq_length", type=int, default=int(RECIPE["max_seq_length"]))
    made.add_argument("--max_new_tokens", type=int, default=int(RECIPE["generation_max_length"]))
    made.add_argument("--num_problems", type=int, default=int(RECIPE["max_eval_samples"]))
    made.add_argument("--autocast", action="store_true", help="the plain way in bfloat16")
    made.add_argument("--warm", action="store_true", help="keep our cache from round to round")
    made.add_argument(
        "--our_flags", nargs="*", action="extend", default=[], help="=--name=value, any number"
    )
    made.add_argument("--dir", help="for inputs and runs; default: a temporary directory")
    made.add_argument("--output", help="JSON of all that is measured, with machine and commit")
    return made


def ours(place: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run of `sft_dist.train`."""
    run_dir = place / "run"
    flags = {
        "model_path": arguments.model_path, "data_path": arguments.data_path,
        "output_dir": run_dir, "wandb_mode": "disabled", "eval_backend": "vllm",
        "cache_dir": (place.parent if arguments.warm else place) / "cache",
        "max_tokens_per_microbatch": arguments.batch_size * arguments.max_seq_length,
        "max_eval_samples": arguments.num_problems,
        "generation_max_length": arguments.max_new_tokens,
        "eval_steps": 10**6, "save_steps": 10**6,  # each epoch's end is saved and scored anyway
        **{name: getattr(arguments, name) for name in (
            "num_epochs", "global_batch_size", "learning_rate", "warmup_steps", "max_seq_length",
        )},
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in flags.items()] + arguments.our_flags
    seconds = launched(place, arguments.ranks, "sft_dist.train", words)
    rows = read_rows(run_dir)
    accuracies = {r["eval/step"]: r["eval/accuracy"] for r in rows if "eval/accuracy" in r}
    return {"seconds": seconds, "accuracies": accuracies, "phases": our_phases(run_dir, rows)}


def our_phases(run_dir: Path, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds on the way of rank 0; what the worker did meanwhile stands in brackets."""
    training = [row for row in rows if "train/loss" in row]
    scored = [row["time"] for row in rows if "eval/accuracy" in row]
    names = ("imports", "data", "ranks", "observers", "model", "engine", "first_step")
    phases = {name: training[0].get(f"startup/{name}_seconds", 0.0) for name in names}
    phases["steps"] = training[-1]["time"] - training[0]["time"]
    phases["saving (of the steps)"] = sum(row["perf/save_stall_seconds"] for row in training)
    phases["wait for the last accuracy"] = max(scored) - training[-1]["time"]
    facts = [
        json.loads(path.read_text())["generation"]
        for path in run_dir.glob("evaluations/step-*/*/summary.json")
    ]
    phases["(worker: loading)"] = sum(fact["load_seconds"] for fact in facts)
    phases["(worker: generation)"] = sum(fact["seconds"] for fact in facts)
    return phases


def plain(place: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run of the plain way."""
    names = ("num_epochs", "global_batch_size", "batch_size", "learning_rate", "warmup_steps",
             "max_seq_length", "max_new_tokens", "num_problems", "autocast")  # fmt: skip
    settings = {name: getattr(arguments, name) for name in names} | {
        "model_path": str(arguments.model_path),
        "data_path": str(arguments.data_path),
        "directory": str(place),
    }
    paths = place / "settings.json", place / "result.json"
    paths[0].write_text(json.dumps(settings))
    seconds = launched(place, arguments.ranks, "benchmarks.plain_way", list(map(str, paths)))
    found = json.loads(paths[1].read_text())
    found["phases"]["imports and launch"] = seconds - sum(found["phases"].values())
    return {"seconds": seconds, **found}


def launched(place: Path, ranks: int, module: str, words: list[str]) -> float:
    """Seconds of a torchrun command from its start to its end."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    began = time.monotonic()
    with (place / "log").open("w") as log:
        done = subprocess.run(
            [sys.executable, "-m", *launcher, "-m", module, "--", *words], stdout=log, stderr=log
        )
    if done.returncode != 0:
        sys.exit(f"{module} ended with {done.returncode}: {place / 'log'}")
    return time.monotonic() - began


def told(found: dict[str, Any]) -> str:
    phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in found["phases"].items())
    scores = ", ".join(f"{step}: {value:.1%}" for step, value in sorted(
        (int(step), value) for step, value in found["accuracies"].items()
    ))  # fmt: skip
    return f"{found['seconds']:.1f} s; accuracy {scores}; {phases}"


def report(runs: dict[str, list[dict[str, Any]]], arguments: argparse.Namespace) -> None:
    medians = {side: statistics.median(run["seconds"] for run in runs[side]) for side in SIDES}
    ratio = medians["plain"] / medians["ours"]
    print(f"ours {medians['ours']:.1f} s, plain {medians['plain']:.1f} s: {ratio:.2f} x")
    if arguments.output:
        record = {
            "machine": describe_machine(1), "ratio": ratio, "runs": runs,
            "arguments": {
                name: Path(value).name if name in PATHS and value else str(value)
                for name, value in vars(arguments).items()
            },
        }  # fmt: skip
        Path(arguments.output).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
