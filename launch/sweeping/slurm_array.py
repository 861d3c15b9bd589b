"""Cells as one Slurm array, and which of them Slurm has not finished with.

Each submission has a file of its own that never changes afterwards: an array that waits in the
queue runs the cells it was submitted for, whatever the sweep file says by then.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.sweeping.cells import Cell
from launch.sweeping.description import Sweep
from sft_dist.durable import write_atomically
from sft_dist.errors import ConfigError

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "slurm" / "sweep.sh"


def sbatch_line(sweep: Sweep, file: Path, count: int) -> list[str]:
    """The command that submits an array of `count` cells."""
    at_once = f"%{sweep.max_parallel}" if sweep.max_parallel else ""
    return [
        "sbatch", "--parsable", f"--array=0-{count - 1}{at_once}", f"--job-name={sweep.name}",
        f"--output={sweep.directory}/logs/%A_%a.out", f"--export=ALL,SFT_ROOT={ROOT}",
        *sweep.sbatch, str(SCRIPT), str(file),
    ]  # fmt: skip


def next_file(sweep: Sweep) -> Path:
    """Where the next submission is described."""
    folder = sweep.directory / "submissions"
    numbers = [int(path.stem) for path in folder.glob("*.json")]
    return folder / f"{max(numbers, default=0) + 1:04d}.json"


def submission(sweep: Sweep, cells: Sequence[Cell], stop: dict[str, Any] | None) -> dict[str, Any]:
    """What a submission's file holds; `launch/sweeping/task.py` reads it."""
    described = [
        {"name": c.name, "run_dir": str(c.run_dir), "arguments": c.arguments(sweep.name)}
        for c in cells
    ]
    return {"stop": stop, "cells": described}


def submit(sweep: Sweep, cells: Sequence[Cell], stop: dict[str, Any] | None) -> str:
    """Submit the cells; the number of the array job.

    Raises:
        ConfigError: when there is no Slurm or it refuses.
    """
    file = next_file(sweep)
    for folder in (file.parent, sweep.directory / "logs"):
        folder.mkdir(parents=True, exist_ok=True)
    content = submission(sweep, cells, stop)
    write_atomically(file, json.dumps(content, indent=1))
    reply = _slurm(sbatch_line(sweep, file, len(cells)))
    if reply.returncode != 0:
        file.unlink()
        raise ConfigError([f"sbatch refused the sweep: {reply.stderr.strip()}"])
    job = reply.stdout.strip().split(";")[0]
    write_atomically(file, json.dumps({**content, "job": job}, indent=1))
    return job


def queued_cells(sweep: Sweep) -> set[str]:
    """Names of the cells whose array tasks are pending or running.

    Raises:
        ConfigError: when Slurm does not answer: nobody knows then what may be started.
    """
    files = sorted((sweep.directory / "submissions").glob("*.json"))
    submissions = [json.loads(path.read_text()) for path in files]
    jobs = {loaded["job"]: loaded["cells"] for loaded in submissions if "job" in loaded}
    if not jobs:
        return set()
    reply = _slurm(["squeue", "--me", "--array", "--noheader", "--format=%F %K"])
    if reply.returncode != 0:
        raise ConfigError(
            [f"squeue must say which cells are still in the queue; it says: {reply.stderr.strip()}"]
        )
    tasks = [line.split() for line in reply.stdout.splitlines()]
    return {
        jobs[words[0]][int(words[1])]["name"]
        for words in tasks
        if len(words) == 2 and words[0] in jobs and words[1].isdigit()
    }


def _slurm(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        raise ConfigError([f"{command[0]} is not found; run where Slurm is, or with --local"])
    return subprocess.run(command, capture_output=True, text=True, check=False)
