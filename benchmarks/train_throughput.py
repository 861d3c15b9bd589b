"""Training throughput: us, TRL's SFTTrainer and the plain Hugging Face Trainer, in one run.

    pip install --target PEERS --no-deps trl==1.16.0 accelerate datasets multiprocess pandas \
        python-dateutil pytz six                      # the peers, apart from our environment
    python benchmarks/train_throughput.py --data_path MATH --peer_path PEERS \
        --make_model 49m --tokenizer_path QWEN2.5     # or --model_path MODEL

In an environment of their own, `pip install trl==1.16.0` alone does; `--peer_path` is then not
needed.

Every side trains the same model on the same examples of MATH, the same ones in each optimizer step,
with the same schedule, AdamW and clipping; each measurement is a fresh process with the same number
of threads. The sides alternate: all of them once a round, and the order turns by one each round.
Before the rounds each peer is tried with every type of numbers, and keeps its fastest. Runs on the
CPU, or on the first GPU where there is one.

What must agree for the work to be equal is checked: the number of target tokens, and the first loss
within 1 %. The exit code is 1 when it does not, or when a side fails.

Prints a table; `--results_dir` (default: results/ beside this file) gets everything as JSON.
"""

import argparse
import dataclasses
import json
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from throughput_machine import describe_machine, package_versions, results_path
from throughput_model import SHAPES, make_model
from throughput_report import (
    Summary,
    as_json,
    faults,
    median_rates,
    profile_table,
    summarise,
    table,
)
from throughput_rounds import Machine, Rounds, last_lines
from throughput_sides import OURS, PEER_DTYPES, PEERS, peer_attention
from throughput_work import Work, sample_examples, write_batches

from sft_dist.tracking.throughput import peak_flops

DEFAULT_SIDES = (
    "ours-torch", "ours-deepspeed", "trl-default", "trl-padded", "trl-sorted", "trl-single",
    "trl-padding-free", "hf-padded", "hf-single",
)  # fmt: skip


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(dir=arguments.work_dir, prefix="throughput-") as name:
        rounds = prepare_rounds(arguments, Path(name))
        rounds.choose_dtypes(tuple(arguments.peer_dtypes), arguments.trial_steps)
        rounds.run(arguments.rounds)
        profile = rounds.profile() if arguments.profile else {}
    sys.exit(report(arguments, rounds, profile))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model_path", type=Path, help="model directory with its tokenizer")
    model.add_argument("--make_model", choices=SHAPES, help="Qwen2 shape, random weights")
    add("--tokenizer_path", type=Path, help="for --make_model: a model with the tokenizer")
    add("--data_path", required=True, help="MATH, as for sft_dist.train")
    add("--peer_path", type=Path, help="where the peers' packages are, if not in this environment")
    add("--sides", nargs="+", choices=[*OURS, *PEERS], default=DEFAULT_SIDES,
        help="ratios refer to the first one")  # fmt: skip
    add("--rounds", type=int, default=5)
    add("--steps", type=int, default=4, help="optimizer steps; the first is not counted")
    add("--global_batch_size", type=int, default=8)
    add("--batch_size", type=int, default=4, help="examples a forward pass, where not one")
    add("--max_seq_length", type=int, default=1024)
    add("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="ours")
    add("--peer_dtypes", nargs="+", choices=PEER_DTYPES, default=PEER_DTYPES,
        help="what each peer may choose from; one of them: no trial")  # fmt: skip
    add("--trial_steps", type=int, default=2, help="optimizer steps of the trial")
    add("--learning_rate", type=float, help="default: 1e-5, of random weights 1e-3")
    add("--our_flags", type=shlex.split, default=[], help="more flags of sft_dist.train, quoted")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add("--seed", type=int, default=0, help="of the sample of examples")
    add("--timeout_seconds", type=float, default=7200, help="for one measurement")
    add("--profile", action="store_true", help="one more run of our first side, profiled")
    add("--work_dir", type=Path, help="for models and runs; they are removed at the end")
    add("--results_dir", type=Path, default=Path(__file__).resolve().parent / "results")
    arguments = parser.parse_args()
    if arguments.make_model and not arguments.tokenizer_path:
        parser.error("--make_model needs --tokenizer_path")
    if arguments.global_batch_size % arguments.batch_size:
        parser.error("--global_batch_size must be a multiple of --batch_size")
    if arguments.learning_rate is None:  # random weights must move, or every loss is the first
        arguments.learning_rate = 1e-3 if arguments.make_model else 1e-5
    return arguments


def prepare_rounds(arguments: argparse.Namespace, directory: Path) -> Rounds:
    """Make the model if asked, choose the examples, and set up what the rounds share."""
    model = arguments.model_path
    if model is None:
        model = make_model(arguments.make_model, directory / "model", arguments.tokenizer_path)
    count = arguments.steps * arguments.global_batch_size
    work = Work(
        model=model.resolve(),
        data=sample_examples(arguments.data_path, count, arguments.seed, directory / "train.jsonl"),
        batches=directory / "batches.json",
        num_steps=arguments.steps,
        global_batch_size=arguments.global_batch_size,
        batch_size=arguments.batch_size,
        max_seq_length=arguments.max_seq_length,
        learning_rate=arguments.learning_rate,
        dtype=arguments.dtype,
        more_flags=tuple(arguments.our_flags),
    )
    machine = Machine(
        threads=arguments.threads,
        timeout_seconds=arguments.timeout_seconds,
        peer_path=arguments.peer_path,
        directory=directory,
    )
    return Rounds(work, write_batches(work), machine, arguments.sides)


def report(arguments: argparse.Namespace, rounds: Rounds, profile: dict[str, Any]) -> int:
    """Print and write the results; the exit code."""
    machine = describe_machine(arguments.threads)
    rates = median_rates(rounds.matrix_rates)
    if peak := peak_flops(machine["gpu"] or ""):
        rates["data sheet's bfloat16"] = peak
    summaries = summarise(rounds.measurements, rounds.steps, rates, sides=rounds.sides)
    wrong = faults(summaries, rounds.measurements, rounds.steps)
    shown = ", ".join(f"{name} {rate / 1e9:,.0f}" for name, rate in rates.items())
    print(f"\n{machine['device']}; commit {machine['commit']}; {sum(rounds.steps.tokens)} tokens "
          f"in {arguments.steps} steps; matrix rates in GFLOP/s: {shown}\n")  # fmt: skip
    print(table(summaries))
    if profile:
        print(f"\nOne step of {profile['side']}:\n\n{profile_table(profile)}")
    for side, reason in rounds.failures.items():
        print(f"\n{side} failed:\n{reason}", file=sys.stderr)
    print("".join(f"\nnot equal work: {fault}" for fault in wrong), file=sys.stderr)
    results = results_record(arguments, rounds, summaries, machine)
    path = write_results(
        arguments.results_dir,
        machine,
        {**results, "matrix_rate": rates, "not_equal_work": wrong, "profile": profile},
    )
    print(f"\n{path}")
    return 1 if wrong or rounds.failures or not summaries else 0


def results_record(
    arguments: argparse.Namespace,
    rounds: Rounds,
    summaries: list[Summary],
    machine: dict[str, Any],
) -> dict[str, Any]:
    """Everything that was set and measured; of paths only their last part."""
    settings = {
        name: value.name if isinstance(value, Path) else value
        for name, value in vars(arguments).items()
        if name not in ("results_dir", "work_dir", "peer_path")
    }
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine,
        "versions": package_versions(arguments.peer_path),
        "settings": {**settings, "data_path": Path(arguments.data_path).name},
        "attention_of_peers": {dtype: peer_attention(dtype) for dtype in PEER_DTYPES},
        "steps": dataclasses.asdict(rounds.steps),
        "matrix_rates": rounds.matrix_rates,
        "load_averages": rounds.loads,
        "sides": as_json(summaries),
        "failures": {side: last_lines(said) for side, said in rounds.failures.items()},
        "measurements": [dataclasses.asdict(m) for m in rounds.measurements],
        "trials": rounds.trials,
    }


def write_results(directory: Path, machine: dict[str, Any], record: dict[str, Any]) -> Path:
    """Write one file a run, named after hardware and time; its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = results_path(directory, "train_throughput", machine)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
