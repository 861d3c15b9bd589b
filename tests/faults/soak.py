"""Kills whole training runs, again and again; each must end as if nothing had happened.

    python -m tests.faults.soak DIRECTORY --kills 50 --seed 1 --output report.json

For each kind of run: one run that nobody disturbs, one that records its points, and then runs that
are killed by SIGKILL at points drawn from the seed, resumed, killed again, and let end. Exit code 1
when a checkpoint was damaged or lost, or when anything that ended differs in one bit.
"""

import argparse
import json
import os
import shutil
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

# Before torch is imported: a fork has one thread.
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

from launch.demo.model import write_model
from launch.demo.problems import make_problems, write_math_directory
from sft_dist.tracking.record import read_rows
from tests.faults.attempts import Job, attempt, in_child, log_tail, plain, preload, remaining
from tests.faults.soak_checks import (
    differences,
    faults_after_kill,
    faults_of_resume,
    newest,
    on_training_thread,
    shortcomings,
)
from tests.faults.soak_plan import Draw, PlannedRun, kind_of, operation_of, operations_in

COMMON = {
    "global_batch_size": 16,  # 6 steps an epoch, the last of 10 examples
    "batch_size": 2,
    "max_steps": 14,
    "max_seq_length": 128,
    "learning_rate": 3e-3,
    "warmup_steps": 2,
    "save_steps": 4,  # and at 6, 12 and 14
    "keep_last_n_checkpoints": 2,
    "wandb_mode": "disabled",
}
EVALUATED = {
    "eval_backend": "hf", "eval_steps": 5, "max_eval_samples": 4, "generation_max_length": 12,
}  # fmt: skip
OFF = {"eval_placement": "off"}
UNMET = 2
"""Runs in which a planned point may fail to come, before another is drawn."""


def make_jobs(directory, **changes):
    """The kinds of runs, on inputs that are made in `directory`."""
    inputs = {"model_path": directory / "model", "data_path": directory / "data"}
    if not directory.exists():
        in_child(lambda: _write_inputs(directory))
    common = {**inputs, "cache_dir": directory / "cache", **COMMON, **changes}
    return {
        "alone": Job("alone", {**common, "engine": "torch", **OFF}),
        "evaluated": Job("evaluated", {**common, "engine": "torch", **EVALUATED}),
        "sharded": Job("sharded", {**common, "engine": "deepspeed", **OFF}, num_ranks=2),
    }


def _write_inputs(directory):
    write_model(directory / "model", 0)
    train, test = make_problems(0, num_train=90, num_test=12)
    write_math_directory(directory / "data", train, test=test)


class Soak:
    """Runs of several kinds in one directory, and what came of them."""

    def __init__(self, directory, jobs):
        self.directory, self.jobs = directory, jobs
        self.kills, self.runs, self.faults, self.unmet = [], [], [], []
        self.recordings = {}

    def record(self, job):
        """The run to equal, and one with points to draw from, which must equal it too."""
        reference, recorded = self.reference(job), self.directory / f"{job}-recorded"
        ended = plain(self.jobs[job], reference)
        if ended.status:
            raise RuntimeError(f"the uninterrupted run failed:\n{log_tail(reference)}")
        points = attempt(self.jobs[job], recorded).points
        self._note(f"{job}, recorded", in_child(lambda: differences(recorded, reference)))
        self._note(f"{job}, recorded", [f"still running: {name}" for name in remaining()])
        found = on_training_thread(points)
        self._note(f"{job}, recorded", [f"on the training thread: {point}" for point in found])
        self.recordings[job] = points
        shutil.rmtree(recorded)

    def reference(self, job):
        return self.directory / f"{job}-uninterrupted"

    def run(self, planned: PlannedRun, **later):
        """One run to its end; the kills that did not come. `later`: flags of resumed attempts."""
        number, job = len(self.runs) + 1, self.jobs[planned.job]
        run_dir = self.directory / f"run-{number}"
        settings, unmet, faults = {}, [], []
        for place, kill in enumerate((*planned.kills, None)):
            before, rows = newest(run_dir), len(read_rows(run_dir))
            ended = attempt(job, run_dir, kill, **settings)
            faults += self._after_attempt(run_dir, kill, ended, before=before, rows=rows)
            settings = later
            if ended.killed is None:
                unmet = [k for k in planned.kills[place:] if k is not None]
                break
            self._tell(number, job, kill, run_dir)
        faults += [f"still running: {name}" for name in remaining()]
        faults += in_child(lambda: differences(run_dir, self.reference(planned.job)))
        self.runs.append({"job": job.name, "kills": place, "faults": faults})
        self._note(f"run {number} ({job.name})", faults)
        if not faults:
            shutil.rmtree(run_dir)
        return unmet

    def _after_attempt(self, run_dir, kill, ended, *, before, rows):
        if kill is not None and kill.node:
            remaining()
        if ended.killed is None and ended.status:
            return [f"an attempt failed:\n{log_tail(run_dir)}"]
        hung = ["the attempt had to be ended from here"] if ended.status == -1 else []
        left = in_child(lambda: faults_after_kill(run_dir, before))
        return hung + left + faults_of_resume(run_dir, rows, before)

    def _tell(self, number, job, kill, run_dir):
        steps = [row["step"] for row in read_rows(run_dir) if "step" in row]
        names = {path.name for path in run_dir.glob("*") if path.is_dir()}
        left = sorted(names - {"logs", "evaluations"})
        found = {
            "run": number, "job": job.name, **asdict(kill), "steps": max(steps, default=0),
            "left": left, "newest": newest(run_dir),
        }  # fmt: skip
        self.kills.append(found)
        whom = "node" if kill.node else kill.process
        print(
            f"kill {len(self.kills)}, run {number} ({job.name}): {whom} at {kill.process}, "
            f"{kill.point} | {found['steps']} steps recorded, left: {' '.join(left) or 'nothing'}",
            flush=True,
        )

    def _note(self, where, faults):
        for fault in faults:
            self.faults.append(f"{where}: {fault}")
            print(f"FAULT {where}: {fault}", flush=True)


def shares(number, jobs):
    """How many kills each job gets."""
    wanted = {"sharded": max(10, number // 10), "evaluated": max(1, number // 5)}
    found = {job: min(wanted[job], number) for job in wanted if job in jobs}
    first = "alone" if "alone" in jobs else jobs[0]
    return {**found, first: number - sum(n for job, n in found.items() if job != first)}


def soak(directory, *, kills, seed, names, changes=None):
    """All of it; the `Soak`."""
    found = Soak(directory, make_jobs(directory / "inputs", **(changes or {})))
    wanted = shares(kills, names)
    for job in wanted:
        found.record(job)
    draw = Draw(found.recordings, seed)
    for job, number in wanted.items():
        queue = draw.runs(job, number)
        tries = Counter()
        while queue:
            for kill in found.run(queue.pop(0)):
                tries[kill] += 1
                again = tries[kill] < UNMET
                if not again:
                    found.unmet.append(asdict(kill))
                queue.append(PlannedRun(job, (kill if again else draw.kills(job, 1)[0],)))
    return found


def report_of(found):
    """What the JSON file holds."""
    recorded = {}
    for points in found.recordings.values():
        recorded |= operations_in(points)
    hit = {operation_of(kill["process"], kill["point"]) for kill in found.kills} - {None}
    whole = {n for n, run in enumerate(found.runs, 1) if not run["faults"]}
    return {
        "kills": len(found.kills),
        "ended_bit_identical": sum(kill["run"] in whole for kill in found.kills),
        "after_first_step": sum(kill["steps"] > 0 for kill in found.kills),
        "corrupt_checkpoints": sum("is damaged" in fault for fault in found.faults),
        "kinds": Counter(str(kind_of(k["process"], k["point"])) for k in found.kills),
        "save_operations": {
            "recorded": sorted(recorded), "killed_before": sorted(name for _, name in hit),
            "kinds_recorded": sorted(set(recorded.values())),
            "kinds_killed_before": sorted({kind for kind, _ in hit}),
        },
        "by_job": Counter(kill["job"] for kill in found.kills),
        "faults": found.faults, "runs": found.runs, "all_kills": found.kills,
        "points_that_did_not_come": found.unmet,
    }  # fmt: skip


def summary(report):
    """The end of the output."""
    kills, saves = report["kills"], report["save_operations"]
    return (
        f"{report['ended_bit_identical']} of {kills} kills ended bit-identical, in "
        f"{len(report['runs'])} runs; {report['corrupt_checkpoints']} corrupt checkpoints, "
        f"{len(report['faults'])} faults; {report['after_first_step'] / max(kills, 1):.0%} after "
        f"the first step; of the file operations of a save {len(saves['kinds_killed_before'])} of "
        f"{len(saves['kinds_recorded'])} kinds, {len(saves['killed_before'])} of "
        f"{len(saves['recorded'])} by name"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="for the runs; must not exist")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", default="alone,evaluated,sharded")
    parser.add_argument("--output", type=Path, help="JSON report")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True)
    preload()
    found = soak(
        arguments.directory.resolve(), kills=arguments.kills, seed=arguments.seed,
        names=arguments.jobs.split(","),
    )  # fmt: skip
    report = {"seed": arguments.seed, **report_of(found)}
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    print(summary(report))
    short = shortcomings(report)
    print("\n".join(short), end="\n" if short else "")
    sys.exit(1 if found.faults or short else 0)


if __name__ == "__main__":
    main()
