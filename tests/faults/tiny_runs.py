"""Runs on one to four ranks of the demo's model, to be disturbed: what to start and whom to hit."""

import json
import subprocess

import psutil

from launch.demo.model import write_model
from launch.demo.problems import make_problems, write_math_directory
from tests.end_to_end.runs import ROOT, environment, flags, kill

EXIT_SECONDS = 60


def make_inputs(directory, *, num_train=90, num_test=12):
    """The demo's model and some of its problems, as flags; tokens are cached beside them."""
    write_model(directory / "model", 0)
    train, test = make_problems(0, num_train=num_train, num_test=num_test)
    write_math_directory(directory / "data", train, test=test)
    return {
        "model_path": directory / "model",
        "data_path": directory / "data",
        "cache_dir": directory / "cache",
    }


def launched(command, run_dir, **settings):
    """The launcher of a run, with all it prints in a file beside the run directory."""
    with log_of(run_dir).open("a") as output:
        return subprocess.Popen(
            [*command, *flags(**settings, output_dir=run_dir)],
            env=environment(), cwd=ROOT, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


def log_of(run_dir):
    """The file that `launched` lets a run print to."""
    return run_dir.with_suffix(".log")


def ended(launcher, run_dir, seconds=EXIT_SECONDS):
    """The exit code of the launcher. One that does not end is killed, and that is a fault."""
    try:
        return launcher.wait(seconds)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"still there after {seconds} s:\n{tail(run_dir)}") from None
    finally:
        if launcher.poll() is None:
            kill(launcher)


def tail(run_dir):
    """The end of what the run printed."""
    return log_of(run_dir).read_text(errors="replace")[-4000:]


def rank_processes(launcher):
    """Rank -> its process, as far as they are there; without a launcher it is rank 0 itself."""
    own = psutil.Process(launcher.pid)
    found = {}
    for process in (own, *own.children(recursive=True)):
        try:
            if "sft_dist.train" in process.cmdline() and "-m" in process.cmdline():
                is_launcher = "torch.distributed.run" in process.cmdline()
                rank = process.environ().get("RANK", "0")
                if not is_launcher:
                    found.setdefault(int(rank), process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def status(run_dir):
    """What status.json says; empty before it is there."""
    path = run_dir / "status.json"
    return json.loads(path.read_text()) if path.exists() else {}
