"""Does a resume take longer, the further the run is?

    python -m benchmarks.resume_time [--steps 1 1000 100000] [--rounds 5] [--engine deepspeed]

A run of the demo's model is stopped after its first step. Its checkpoint is given the numbers of
other steps, and its metrics.jsonl as many rows as the run would have had; then each is resumed in
turn, for one step. Measured from the birth of the process to the end of that step, by the run
itself (`startup/...`). Exit code 1 when the furthest takes longer than the first by more than the
rounds differ.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from launch.demo.model import write_model
from launch.demo.problems import make_problems, write_math_directory
from sft_dist.checkpoint import checkpoint_path, damage, read_training_state
from sft_dist.checkpoint.layout import MANIFEST, TRAINING_STATE
from sft_dist.checkpoint.manifest import file_entry, manifest_text, read_listing
from sft_dist.tracking.record import FILE_NAME, read_rows
from sft_dist.tracking.startup import PARTS

EXAMPLES, BATCH = 90, 16
STEPS_PER_EPOCH = -(-EXAMPLES // BATCH)
TOTAL = "startup/total_seconds"


def main() -> None:
    arguments = parser().parse_args()
    directory = Path(arguments.dir or tempfile.mkdtemp(prefix="resume-time-"))
    template = first_step(directory, arguments.engine, last=max(arguments.steps))
    runs = {step: advanced(template, directory / f"at-{step}", step) for step in arguments.steps}
    found: dict[int, list[dict[str, float]]] = {step: [] for step in runs}
    for number in range(arguments.rounds + 1):
        # To and fro: what the run before has left in caches favours nobody.
        for step, prepared in sorted(runs.items(), reverse=number % 2 == 1):
            row = resumed(prepared, directory / "run", step)
            if number:  # the first round fills caches
                found[step].append(row)
    print("\n".join(table(found)))
    sys.exit(1 if grows(found) else 0)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    made.add_argument("--steps", type=int, nargs="+", default=[1, 1000, 100_000])
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--engine", default="deepspeed")
    made.add_argument("--dir", help="for inputs and runs; default: a temporary directory")
    return made


def first_step(directory: Path, engine: str, *, last: int) -> Path:
    """A run stopped after step 1 of a plan that goes beyond `last`."""
    write_model(directory / "model", 0)
    train, test = make_problems(0, num_train=EXAMPLES, num_test=4)
    write_math_directory(directory / "data", train, test=test)
    settings = {
        "model_path": directory / "model", "data_path": directory / "data",
        "cache_dir": directory / "cache", "engine": engine, "global_batch_size": BATCH,
        "batch_size": 4, "max_seq_length": 128, "num_epochs": last // STEPS_PER_EPOCH + 10,
        "save_steps": 10**6, "eval_placement": "off", "wandb_mode": "disabled",
        "max_runtime": 1,  # over when the first step is done
    }  # fmt: skip
    train_one_step(directory / "template", settings)
    return directory / "template"


def train_one_step(run_dir: Path, settings: dict[str, object]) -> None:
    flags = [f"--{name}={value}" for name, value in {**settings, "output_dir": run_dir}.items()]
    done = subprocess.run(
        [sys.executable, "-m", "sft_dist.train", *flags], check=False, capture_output=True,
        text=True, env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])


def advanced(template: Path, run_dir: Path, step: int) -> Path:
    """The run as it would stand at `step`: its one checkpoint, and a row for each step."""
    shutil.copytree(template, run_dir, ignore=shutil.ignore_patterns("checkpoint-*"))
    checkpoint = checkpoint_path(run_dir, step)
    shutil.copytree(checkpoint_path(template, 1), checkpoint)
    state = replace(read_training_state(checkpoint), step=step)
    listed = read_listing(checkpoint_path(template, 1))
    torch.save(state.as_dict(), checkpoint / TRAINING_STATE)
    listed[TRAINING_STATE] = file_entry(checkpoint / TRAINING_STATE)
    (checkpoint / MANIFEST).write_text(manifest_text(step, listed))
    assert not damage(checkpoint)
    (run_dir / FILE_NAME).write_text("".join(rows_until(read_rows(template)[0], step)))
    return run_dir


def rows_until(first: dict[str, object], step: int) -> Iterator[str]:
    row = {name: value for name, value in first.items() if not name.startswith("startup/")}
    for number in range(1, step + 1):
        yield json.dumps({**row, "step": number, "train/step": number}) + "\n"


def resumed(prepared: Path, run_dir: Path, step: int) -> dict[str, float]:
    """The row of the first step after a resume of a copy, which is removed again."""
    shutil.copytree(prepared, run_dir)
    os.sync()  # the copy is no part of it
    train_one_step(run_dir, {"resume_from_checkpoint": "latest"})
    row = read_rows(run_dir)[-1]
    assert row["step"] == step + 1, row
    shutil.rmtree(run_dir)
    return row


def table(found: dict[int, list[dict[str, float]]]) -> list[str]:
    """Medians of the parts and of the sum, with the range of the sum; seconds."""
    heads = ["resumed at step", *(part.replace("_", " ") for part in PARTS), "sum", "range"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for step, rows in found.items():
        parts = [statistics.median(r[f"startup/{part}_seconds"] for r in rows) for part in PARTS]
        sums = sorted(row[TOTAL] for row in rows)
        cells = [f"{step:,}", *(f"{part:.2f}" for part in parts), f"{statistics.median(sums):.2f}"]
        lines.append(f"| {' | '.join(cells)} | {sums[0]:.2f} to {sums[-1]:.2f} |")
    return lines


def grows(found: dict[int, list[dict[str, float]]]) -> bool:
    """Whether the last step's median is above the range of the first one's."""
    first, last = min(found), max(found)
    return statistics.median(r[TOTAL] for r in found[last]) > max(r[TOTAL] for r in found[first])


if __name__ == "__main__":
    main()
