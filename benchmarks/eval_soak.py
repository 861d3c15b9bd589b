"""Real training, real vLLM, kills at random: is every evaluation there, once, of its own weights?

    python -m benchmarks.eval_soak [--ranks 2] [--worker_kills 5] [--trainer_kills 3] [--dir DIR]

Trains the demo's model once undisturbed, saving every step: the weights that each step has. Then
again with 20 evaluations at steps drawn by chance, few of which are saved as checkpoints; the
evaluation worker and the whole trainer are killed at random moments, and the trainer is resumed
each time. Exit code 1 when an evaluation is missing, double, or of other weights than its step's.
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
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import psutil

from launch.demo.model import write_model
from launch.demo.problems import make_problems, write_math_directory
from sft_dist.evaluation.queue import EvaluationQueue
from sft_dist.fingerprint import weights_fingerprint
from sft_dist.tracking.record import read_rows

STEPS, EVALUATIONS, SAVE_EVERY = 133, 20, 10
WORKER = "sft_dist.evaluation.worker"
TRAINER = "benchmarks.eval_soak_trainer"


def main() -> None:
    arguments = parser().parse_args()
    directory = Path(arguments.dir or tempfile.mkdtemp(prefix="eval-soak-"))
    chance = random.Random(arguments.seed)
    write_inputs(directory)
    steps = drawn_steps(chance)
    print(f"evaluations of steps {steps}", flush=True)
    reference = start(directory, arguments, "reference", save_steps=1, eval_placement="off")
    if reference.wait(timeout=1800) != 0:
        sys.exit(f"the undisturbed run failed: {directory / 'reference.log'}")
    began = time.monotonic()
    run_dir = directory / "run"
    soak(directory, arguments, chance, steps)
    faults = list(found_wrong(directory, steps))
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


def drawn_steps(chance: random.Random) -> list[int]:
    """The base model, the last step, and others by chance."""
    return sorted({0, STEPS, *chance.sample(range(1, STEPS), EVALUATIONS - 2)})


def soak(
    directory: Path, arguments: argparse.Namespace, chance: random.Random, steps: list[int]
) -> None:
    """Kill and resume until all kills are spent, then let the run end."""
    kills = [WORKER] * arguments.worker_kills + ["trainer"] * arguments.trainer_kills
    chance.shuffle(kills)
    # Four deaths in a row without anything published are one engine that cannot live: given up.
    while arguments.trainer_kills and "WWWW" in "".join("W" if k == WORKER else "t" for k in kills):
        chance.shuffle(kills)
    start_run = partial(start, directory, arguments, "run", steps=steps)
    trainer = start_run()
    for number, victim in enumerate(kills):
        # Training is soon done: every second kill waits for evaluations, to be spread over them.
        share = number / (len(kills) + 2)
        progress = evaluations_done if number % 2 else work_done
        wait(trainer, lambda: progress(directory / "run") >= share)  # noqa: B023  (called here)
        time.sleep(chance.uniform(0.0, 3.0))
        if victim == WORKER:
            wait(trainer, partial(has_worker, trainer))
            process = worker_of(trainer)
            if process is not None:
                process.kill()
        else:
            kill_tree(trainer)
            trainer = start_run()
        print(f"killed {victim} after {done(directory / 'run')} evaluations", flush=True)
    if trainer.wait(timeout=1800) != 0:
        sys.exit(f"the trainer ended with {trainer.returncode}: {directory / 'run.log'}")


def start(
    directory: Path,
    arguments: argparse.Namespace,
    name: str,
    *,
    steps: Sequence[int] = (),
    **settings: object,
) -> "subprocess.Popen[bytes]":
    flags = {
        "model_path": directory / "model", "data_path": directory / "data",
        "output_dir": directory / name, "resume_from_checkpoint": "latest",
        "max_steps": STEPS, "num_epochs": 1000, "global_batch_size": 16, "warmup_steps": 2,
        "learning_rate": 1e-3, "save_steps": SAVE_EVERY,
        "keep_last_n_checkpoints": 0, "max_seq_length": 128, "generation_max_length": 24,
        "eval_backend": arguments.eval_backend, "engine": arguments.engine,
        "wandb_mode": "disabled", **settings,
    }  # fmt: skip
    ranks = ["--standalone", "--nproc_per_node", str(arguments.ranks)]
    command = [sys.executable, "-m", "torch.distributed.run", *ranks, "-m", TRAINER]
    command += [f"--{name}={value}" for name, value in flags.items()]
    environment = {**os.environ, "EVAL_AT": ",".join(map(str, steps)) or "-1"}
    with (directory / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env=environment
        )


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
        return TRAINER in process.cmdline()
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


def evaluations_done(run_dir: Path) -> float:
    """Share of the evaluations that are recorded."""
    return done(run_dir) / EVALUATIONS


def work_done(run_dir: Path) -> float:
    """Share of steps and evaluations, taken together."""
    step = max((row["step"] for row in read_rows(run_dir) if "step" in row), default=0)
    return (step / STEPS + evaluations_done(run_dir)) / 2


def attempts(run_dir: Path) -> int:
    return sum(len(queued.attempts()) for queued in EvaluationQueue(run_dir).requests())


def found_wrong(directory: Path, steps: Sequence[int]) -> Iterator[str]:
    """Missing, double and false evaluations, one line each."""
    run_dir = directory / "run"
    rows = evaluation_rows(run_dir)
    times = Counter(row["eval/step"] for row in rows)
    for step in steps:
        if times[step] != 1:
            yield f"step {step} is recorded {times[step]} times"
    yield from (f"step {step} was not asked for" for step in times if step not in steps)
    expected = {step: weights_fingerprint(weights_of(directory, step)) for step in steps}
    for row in rows:
        step = row["eval/step"]
        if row["eval/weights_fingerprint"] != expected.get(step):
            yield f"step {step} scored other weights than the undisturbed run has there"
    graded = [queued for queued in EvaluationQueue(run_dir).requests() if queued.is_graded]
    published = Counter(queued.request.step for queued in graded)
    yield from (f"step {step} was generated {n} times" for step, n in published.items() if n != 1)
    for queued in graded:
        step, facts = queued.request.step, queued.published_facts()
        proved = facts.get("weights_proved") or facts.get("backend") != "vllm"
        if facts.get("weights_fingerprint") != expected[step] or not proved:
            yield f"step {step}: its engine had other weights, or did not prove them: {facts}"


def weights_of(directory: Path, step: int) -> Path:
    return directory / "reference" / f"checkpoint-{step}" if step else directory / "model"


if __name__ == "__main__":
    main()
