"""Real training, real vLLM, kills at random: is every evaluation there, once, of its own weights?

    python -m benchmarks.eval_soak [--ranks 2] [--worker_kills 5] [--trainer_kills 3] [--dir DIR]

Trains the demo's model for 19 x 7 steps with an evaluation every 7 (20 with step 0), kills the
evaluation worker and the whole trainer at random moments, resumes the trainer each time, and then
compares the record with the checkpoints. Exit code 1 when anything is missing, double or wrong.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil

from launch.demo.model import write_model
from launch.demo.problems import make_problems, write_math_directory
from sft_dist.evaluation.queue import EvaluationQueue
from sft_dist.fingerprint import weights_fingerprint
from sft_dist.tracking.record import read_rows

EVERY, STEPS = 7, 7 * 19
WORKER = "sft_dist.evaluation.worker"


def main() -> None:
    arguments = parser().parse_args()
    directory = Path(arguments.dir or tempfile.mkdtemp(prefix="eval-soak-"))
    chance = random.Random(arguments.seed)
    write_inputs(directory)
    began = time.monotonic()
    run_dir = directory / "run"
    soak(directory, arguments, chance)
    faults = list(found_wrong(directory))
    rows = evaluation_rows(run_dir)
    print(
        f"{len(rows)} rows of {len({row['eval/step'] for row in rows})} evaluations, "
        f"{arguments.worker_kills} kills of the worker, {arguments.trainer_kills} of the trainer, "
        f"{time.monotonic() - began:.0f} s, {attempts(run_dir)} attempts at generation"
    )
    for fault in faults:
        print(f"WRONG: {fault}")
    sys.exit(1 if faults else 0)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    made.add_argument("--ranks", type=int, default=2)
    made.add_argument("--worker_kills", type=int, default=5)
    made.add_argument("--trainer_kills", type=int, default=3)
    made.add_argument("--eval_backend", default="vllm")
    made.add_argument("--engine", default="deepspeed")
    made.add_argument("--seed", type=int, default=0, help="of the moments and the order of kills")
    made.add_argument("--dir", help="for inputs and run; default: a temporary directory")
    return made


def write_inputs(directory: Path) -> None:
    """More examples than the run sees: an epoch's end would be evaluated too."""
    write_model(directory / "model", 0)
    train, test = make_problems(0, num_train=2400, num_test=12)
    write_math_directory(directory / "data", train, test=test)


def soak(directory: Path, arguments: argparse.Namespace, chance: random.Random) -> None:
    """Kill and resume until all kills are spent, then let the run end."""
    kills = [WORKER] * arguments.worker_kills + ["trainer"] * arguments.trainer_kills
    chance.shuffle(kills)
    # Four deaths in a row without anything published are one engine that cannot live: given up.
    while arguments.trainer_kills and "WWWW" in "".join("W" if k == WORKER else "t" for k in kills):
        chance.shuffle(kills)
    trainer = start(directory, arguments)
    for number, victim in enumerate(kills):
        # Spread over training and the evaluations after it.
        share = number / (len(kills) + 2)
        wait(trainer, partial(has_come_to, directory / "run", share))
        time.sleep(chance.uniform(0.0, 3.0))
        if victim == WORKER:
            wait(trainer, partial(has_worker, trainer))
            process = worker_of(trainer)
            if process is not None:
                process.kill()
        else:
            kill_tree(trainer)
            trainer = start(directory, arguments)
        print(f"killed {victim} after {done(directory / 'run')} evaluations", flush=True)
    if trainer.wait(timeout=1800) != 0:
        sys.exit(f"the trainer ended with {trainer.returncode}: {directory / 'trainer.log'}")


def start(directory: Path, arguments: argparse.Namespace) -> "subprocess.Popen[bytes]":
    flags = {
        "model_path": directory / "model", "data_path": directory / "data",
        "output_dir": directory / "run", "resume_from_checkpoint": "latest",
        "max_steps": STEPS, "num_epochs": 1000, "global_batch_size": 16, "warmup_steps": 2,
        "learning_rate": 1e-3, "eval_steps": EVERY, "save_steps": EVERY,
        "keep_last_n_checkpoints": 0, "max_seq_length": 128, "generation_max_length": 24,
        "eval_backend": arguments.eval_backend, "engine": arguments.engine,
        "wandb_mode": "disabled",
    }  # fmt: skip
    ranks = ["--standalone", "--nproc_per_node", str(arguments.ranks)]
    command = [sys.executable, "-m", "torch.distributed.run", *ranks, "-m", "sft_dist.train"]
    command += [f"--{name}={value}" for name, value in flags.items()]
    with (directory / "trainer.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def worker_of(trainer: "subprocess.Popen[bytes]") -> psutil.Process | None:
    for child in psutil.Process(trainer.pid).children(recursive=True):
        try:
            if WORKER in child.cmdline():
                return child
        except psutil.Error:
            continue
    return None


def kill_tree(trainer: "subprocess.Popen[bytes]") -> None:
    """The launcher and its ranks at once, as a lost node; the worker has a session of its own."""
    ranks = [c for c in psutil.Process(trainer.pid).children(recursive=True) if is_rank(c)]
    for process in [psutil.Process(trainer.pid), *ranks]:
        os.kill(process.pid, signal.SIGKILL)
    trainer.wait()
    psutil.wait_procs(ranks, timeout=30)


def is_rank(process: psutil.Process) -> bool:
    try:
        return "sft_dist.train" in process.cmdline()
    except psutil.Error:
        return False


def wait(trainer: "subprocess.Popen[bytes]", condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 900
    while not condition():
        if trainer.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"the run ended, or nothing came, before all kills: {trainer.returncode}")
        time.sleep(0.2)


def evaluation_rows(run_dir: Path) -> list[dict]:
    return [row for row in read_rows(run_dir) if "eval/step" in row]


def done(run_dir: Path) -> int:
    return len({row["eval/step"] for row in evaluation_rows(run_dir)})


def has_worker(trainer: "subprocess.Popen[bytes]") -> bool:
    return worker_of(trainer) is not None


def has_come_to(run_dir: Path, share: float) -> bool:
    """Whether so much of the steps and evaluations, taken together, is done."""
    step = max((row["step"] for row in read_rows(run_dir) if "step" in row), default=0)
    return (step / STEPS + done(run_dir) / (STEPS // EVERY + 1)) / 2 >= share


def attempts(run_dir: Path) -> int:
    return sum(len(queued.attempts()) for queued in EvaluationQueue(run_dir).requests())


def found_wrong(directory: Path) -> Iterator[str]:
    """Missing, double and false evaluations, one line each."""
    run_dir = directory / "run"
    rows = evaluation_rows(run_dir)
    times = Counter(row["eval/step"] for row in rows)
    for step in range(0, STEPS + 1, EVERY):
        if times[step] != 1:
            yield f"step {step} is recorded {times[step]} times"
    yield from (f"step {step} was not asked for" for step in times if step % EVERY)
    for row in rows:
        step = row["eval/step"]
        model_dir = run_dir / f"checkpoint-{step}" if step else directory / "model"
        if row["eval/weights_fingerprint"] != weights_fingerprint(model_dir):
            yield f"step {step} scored other weights than those of {model_dir}"
    published = Counter(q.request.step for q in EvaluationQueue(run_dir).requests() if q.is_graded)
    yield from (f"step {step} was generated {n} times" for step, n in published.items() if n != 1)


if __name__ == "__main__":
    main()
