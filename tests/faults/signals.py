"""SIGUSR1 to one rank of four, at times drawn from a seed: do all leave, and with what?

    python -m tests.faults.signals --trials 20 --seed 1 [--start-up 4] [--waits 4]

The trials in training are one run: each resumes what the one before left, so in the end every step
must be there once, with the losses of a run that nobody disturbed. Those in start-up and in the
wait for evaluations are runs of their own. Exits 1 when a trial was not as it should be.
"""

import argparse
import os
import random
import re
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

from sft_dist.checkpoint import checkpoint_step, damage, list_checkpoints
from sft_dist.tracking.record import read_rows
from tests.end_to_end.runs import evaluations, losses, on_ranks, run, wait_for
from tests.faults.tiny_runs import (
    ended,
    launched,
    log_of,
    make_inputs,
    rank_processes,
    status,
    tail,
)

RANKS = 4
TRAINING = {
    "global_batch_size": 64,  # a step of about a third of a second on two cores
    "num_epochs": 1000,
    "batch_size": 1,
    "max_seq_length": 128,
    "save_steps": 5,
    "learning_rate": 1e-3,
    "eval_placement": "off",
}
NUM_TRAIN = 512
"""8 steps an epoch: its end is a save too, and signals fall into saves."""
WAITING = {
    **TRAINING,
    "max_steps": 2,
    "warmup_steps": 0,
    "eval_backend": "hf",
    "eval_placement": "after",  # so that the wait begins with the start of the worker
    "generation_max_length": 24,
    "eval_at_start": "false",
}
DRAWN_SECONDS = {"training": 4.0, "start-up": 10.0, "wait": 5.0}
"""From the first step of the attempt, the birth of the rank, the beginning of the wait."""
SLACK_SECONDS = 0.25
"""For the scheduler of a machine with fewer cores than ranks, and files' times."""
EXIT_SECONDS = 20.0
"""From the published checkpoint to the end of the launcher: report, wandb, four interpreters."""
SAVED = re.compile(r"saved .*checkpoint-(\d+): .* copied in ([\d.]+) s, written in ([\d.]+) s")


@dataclass(frozen=True)
class Trial:
    """One signal and what came of it; times in seconds."""

    phase: str
    rank: int
    drawn: float
    had: int
    """Step of the last row when the signal came."""
    stopped: int
    """Step of the newest checkpoint afterwards."""
    to_boundary: float = 0.0
    """From the signal to the end of the last step."""
    step: float = 0.0
    """That the last step took from its beginning."""
    to_checkpoint: float = 0.0
    save: float = 0.0
    """The last two saves, from the copy to the name: one may have been under way."""
    to_exit: float = 0.0
    """From the signal until the launcher had gone."""
    faults: list[str] = field(default_factory=list)


class Run:
    """A run directory that is started, signalled and started again."""

    def __init__(self, run_dir, **settings):
        self.run_dir, self.settings = run_dir, settings

    def start(self):
        if (self.run_dir / "config.yaml").exists():
            self.settings = {"resume_from_checkpoint": "latest"}
        self.began = time.time()
        return launched(on_ranks(RANKS), self.run_dir, **self.settings)

    def rows(self):
        """Those of this attempt."""
        steps = (row for row in read_rows(self.run_dir) if "step" in row)
        return [row for row in steps if row["time"] >= self.began]

    def newest(self):
        found = list_checkpoints(self.run_dir)
        return found[-1] if found else None


def signalled(launcher, rank):
    """Send SIGUSR1; when, and which processes there were."""
    processes = rank_processes(launcher)
    now = time.time()
    os.kill(processes[rank].pid, signal.SIGUSR1)
    return now, [*processes.values(), psutil.Process(launcher.pid)]


def left(launcher, this, processes):
    """Faults of how the processes went, seconds of the clock when the launcher had gone."""
    faults = []
    try:
        code = ended(launcher, this.run_dir)
        if code:
            faults.append(f"exit code {code}")
    except AssertionError as error:
        faults.append(str(error))
    alive = [process.pid for process in processes if process.is_running()]
    if alive:
        faults.append(f"still running: {alive}")
    told = status(this.run_dir)
    if told.get("state") != "requeue" or not told.get("reason"):
        faults.append(f"status.json: {told}")
    if this.newest() is not None:
        faults += damage(this.newest())
    return faults, time.time()


def in_training(this, rng):
    """A signal while steps are computed, saved and reported."""
    rank, drawn = rng.randrange(RANKS), rng.uniform(0, DRAWN_SECONDS["training"])
    launcher = this.start()
    wait_for(this.rows, launcher)
    time.sleep(drawn)
    sent, processes = signalled(launcher, rank)
    faults, gone = left(launcher, this, processes)
    return judged(this, Trial(
        "training", rank, drawn,
        had=max(row["step"] for row in read_rows(this.run_dir) if row["time"] <= sent),
        stopped=checkpoint_step(this.newest()),
        to_boundary=this.rows()[-1]["time"] - sent,
        step=this.rows()[-1]["perf/step_seconds"],
        to_checkpoint=this.newest().stat().st_ctime - sent,
        save=sum(save_seconds(this.run_dir)[-2:]),
        to_exit=gone - sent,
        faults=faults,
    ))  # fmt: skip


def judged(this, trial):
    """The trial with what is wrong with its step and its times."""
    begun = trial.had + 1
    rules = {
        f"checkpoint-{trial.stopped} although step {begun} had begun at most":
            trial.had <= trial.stopped <= begun + 1,
        f"steps up to {this.rows()[-1]['step']}, checkpoint-{trial.stopped}":
            this.rows()[-1]["step"] == trial.stopped,
        f"{trial.to_boundary:.2f} s to the end of the last step, which took {trial.step:.2f} s":
            trial.to_boundary <= trial.step + SLACK_SECONDS,
        f"{trial.to_checkpoint:.2f} s to the checkpoint; step {trial.step:.2f}, saves "
        f"{trial.save:.2f}":
            trial.to_checkpoint <= trial.step + trial.save + SLACK_SECONDS,
        f"{trial.to_exit - trial.to_checkpoint:.1f} s from the checkpoint to the end":
            trial.to_exit - trial.to_checkpoint <= EXIT_SECONDS,
    }  # fmt: skip
    trial.faults.extend(text for text, holds in rules.items() if not holds)
    return trial


def save_seconds(run_dir):
    """Copy and writing of each checkpoint, as the run printed them."""
    return [float(copy) + float(write)
            for _, copy, write in SAVED.findall(log_of(run_dir).read_text())]  # fmt: skip


def in_start_up(this, rng):
    """A signal before the first step, to a rank that has just been born or is older."""
    rank, drawn = rng.randrange(RANKS), rng.uniform(0, DRAWN_SECONDS["start-up"])
    launcher = this.start()
    wait_for(lambda: len(rank_processes(launcher)) == RANKS, launcher)
    time.sleep(drawn)
    had = max(losses(this.run_dir), default=0)
    sent, processes = signalled(launcher, rank)
    faults, gone = left(launcher, this, processes)
    newest = this.newest()
    stopped = checkpoint_step(newest) if newest else 0
    return Trial("start-up", rank, drawn, had, stopped, to_exit=gone - sent, faults=faults)


def in_a_wait(this, rng):
    """A signal to the only rank that is left at the end, while evaluations are open."""
    drawn = rng.uniform(0, DRAWN_SECONDS["wait"])
    launcher = this.start()
    wait_for(lambda: "waiting" in status(this.run_dir).get("reason", ""), launcher)
    time.sleep(drawn)
    sent, processes = signalled(launcher, 0)
    faults, gone = left(launcher, this, processes)
    steps = this.settings["max_steps"]
    run(on_ranks(RANKS), resume_from_checkpoint="latest", output_dir=this.run_dir)
    if status(this.run_dir)["state"] != "finished" or steps not in evaluations(this.run_dir):
        faults.append(f"resumed, it did not finish its evaluation: {tail(this.run_dir)}")
    return Trial("wait", 0, drawn, steps, checkpoint_step(this.newest()), to_exit=gone - sent,
                 faults=faults)  # fmt: skip


def undisturbed(inputs, run_dir, steps):
    """Losses of the first steps of the same run."""
    this = Run(run_dir, **inputs, **TRAINING)
    launcher = this.start()
    try:
        wait_for(lambda: steps in losses(run_dir), launcher, timeout=60 + 3 * steps)
        (run_dir / "STOP").touch()
    finally:
        ended(launcher, run_dir)
    return losses(run_dir)


def curve_faults(run_dir, expected):
    """What is wrong with the union of the attempts' rows: a gap, a repetition, another loss."""
    steps = [row["step"] for row in read_rows(run_dir) if "step" in row]
    faults = [] if steps == list(range(1, len(steps) + 1)) else [f"steps in metrics.jsonl: {steps}"]
    found = losses(run_dir)
    differ = [step for step in found if found[step] != expected.get(step)]
    return faults + ([f"another loss than undisturbed at steps {differ}"] if differ else [])


def told(trial):
    line = f"{trial.phase:8} rank {trial.rank} at {trial.drawn:4.1f} s: row {trial.had}, "
    if trial.phase == "training":
        line += (f"stopped at {trial.stopped}; step ended after {trial.to_boundary:.2f} s "
                 f"(it took {trial.step:.2f}), checkpoint after {trial.to_checkpoint:.2f} s "
                 f"(saves {trial.save:.2f}), ")  # fmt: skip
    line += f"gone after {trial.to_exit:.1f} s"
    return line + "".join(f"\n    FAULT: {fault}" for fault in trial.faults)


def summary(trials):
    """A row of the table for each phase."""
    rows = ["| phase | as it should | step ended, s | that step, s | checkpoint, s | gone, s |",
            "|---|---|---|---|---|---|"]  # fmt: skip
    for phase in dict.fromkeys(trial.phase for trial in trials):
        mine = [trial for trial in trials if trial.phase == phase]
        good = sum(not trial.faults for trial in mine)
        cells = [f"{median(values):.2f} ({max(values):.2f})" if any(values) else "-" for values in (
            [t.to_boundary for t in mine], [t.step for t in mine],
            [t.to_checkpoint for t in mine], [t.to_exit for t in mine],
        )]  # fmt: skip
        rows.append(f"| {phase} | {good} of {len(mine)} | {' | '.join(cells)} |")
    return "\n".join([*rows, "", "Median and, in brackets, the most; from the signal on."])


def run_trials(inputs, directory, rng, *, training=0, start_up=0, waits=0):
    """The trials one after another, as they end."""
    long = Run(directory / "training", **inputs, **TRAINING)
    for _ in range(training):
        yield in_training(long, rng)
    for number in range(start_up):
        yield in_start_up(Run(directory / f"start-{number}", **inputs, **TRAINING), rng)
    for number in range(waits):
        yield in_a_wait(Run(directory / f"wait-{number}", **inputs, **WAITING), rng)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--start-up", type=int, default=0)
    parser.add_argument("--waits", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    directory = options.directory or Path(tempfile.mkdtemp(prefix="signals-"))
    inputs = make_inputs(directory, num_train=NUM_TRAIN)
    trials = []
    for trial in run_trials(inputs, directory, random.Random(options.seed), waits=options.waits,
                            training=options.trials, start_up=options.start_up):  # fmt: skip
        trials.append(trial)
        print(told(trial), flush=True)
    faults = [fault for trial in trials for fault in trial.faults]
    if options.trials:
        steps = max(losses(directory / "training"))
        faults += (found := curve_faults(
            directory / "training", undisturbed(inputs, directory / "undisturbed", steps)
        ))  # fmt: skip
        print("\n".join(found) or f"{steps} steps, each once, losses as in an undisturbed run")
    print(summary(trials))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
