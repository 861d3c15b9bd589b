"""Starting real runs of `sft_dist.train` in tests and reading what they left."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from sft_dist.tracking.record import last_by, read_rows

ROOT = Path(__file__).parents[2]
PLAIN = [sys.executable, "-m", "sft_dist.train"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
SFT_TRAIN = [str(Path(sys.executable).parent / "sft-train")]


def on_ranks(number):
    """The command that trains on so many ranks; one rank needs no launcher."""
    return PLAIN if number == 1 else [*TORCHRUN, str(number), *PLAIN[1:]]


TWO_RANKS = on_ranks(2)


def flags(**settings):
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}


def run(command, **settings):
    done = subprocess.run(
        [*command, *flags(**settings)], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done


def start(command, **settings):
    return subprocess.Popen(
        [*command, *flags(**settings)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for(condition, process, timeout=240):
    deadline = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None, f"the run ended early with {process.returncode}"
        assert time.monotonic() < deadline, "the run did not get there in time"
        time.sleep(0.02)


def kill(process):
    """SIGKILL to the launcher, its ranks and the evaluation worker, all at once."""
    tree = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in tree:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(tree, timeout=30)
    process.wait()


def losses(run_dir):
    return {step: row["train/loss"] for step, row in last_by(read_rows(run_dir), "step").items()}


def norms(run_dir):
    rows = last_by(read_rows(run_dir), "step")
    return {step: row["train/grad_norm_preclip"] for step, row in rows.items()}


def evaluations(run_dir):
    return last_by(read_rows(run_dir), "eval/step")
