"""Starts one attempt of a run and waits for its end, whatever that is.

This process imports what training imports, once, and forks: a start costs milliseconds. It must
never have a second thread, so it does in a child whatever might start one, and it is the parent of
what the dead leave behind.
"""

import ctypes
import json
import os
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import psutil

from tests.end_to_end.runs import ROOT, TORCHRUN, flags, on_ranks
from tests.faults.points import Kill, environment_of, read_log

ATTEMPT_SECONDS = 240
"""An attempt takes seconds; one that takes so long hangs."""
LEAVE_SECONDS = 30
"""For processes whose run has died to find out."""
PRELOADED = (
    "sft_dist.train", "sft_dist.ending", "tests.faults.recipe_points",
    "torch.distributed.checkpoint", "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.qwen2.tokenization_qwen2",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A kind of run."""

    name: str
    settings: dict
    num_ranks: int = 1


@dataclass(frozen=True)
class Ending:
    """How an attempt ended."""

    status: int
    """Exit status of its first process as of `waitpid`; -1: it hung, and was killed from here."""
    told: list
    """What its processes told, see `points.read_log`."""

    @property
    def killed(self):
        return next((entry["killed"] for entry in self.told if "killed" in entry), None)

    @property
    def points(self):
        """(process, point), in order."""
        return [(entry["process"], entry["point"]) for entry in self.told if "point" in entry]


def preload():
    """Import what an attempt needs, and nothing that starts a thread."""
    for name in PRELOADED:
        import_module(name)
    become_reaper()


def become_reaper():
    """Take in the children of those that die, instead of init."""
    set_child_subreaper = 36  # PR_SET_CHILD_SUBREAPER, linux/prctl.h
    ctypes.CDLL(None).prctl(set_child_subreaper, 1)


def in_child(work):
    """What `work()` returns, in JSON; the threads that it starts do not stay."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "w") as answer:
                json.dump(work(), answer)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    assert os.waitpid(pid, 0)[1] == 0, "see above"
    return json.loads(text)


def plain(job, run_dir, **settings):
    """A whole run by a process of its own, without points: what the others must equal."""
    command = [*on_ranks(job.num_ranks), *_flags(job, run_dir, settings)]
    return _attempt(run_dir, lambda log: os.execve(sys.executable, command, os.environ))


def attempt(job, run_dir, kill: Kill | None = None, **settings):
    """One attempt with points, resumed from the newest checkpoint; it ends at `kill`."""
    arguments = _flags(job, run_dir, {"resume_from_checkpoint": "latest", **settings})

    def run(log):
        os.environ |= environment_of(run_dir, log, leader=os.getpid(), kill=kill)
        module = ["-m", "tests.faults.soak_attempt", *arguments]
        if job.num_ranks > 1:
            os.execve(sys.executable, [*TORCHRUN, str(job.num_ranks), *module], os.environ)
        from tests.faults.soak_attempt import train

        train(arguments)

    return _attempt(run_dir, run)


def _flags(job, run_dir, settings):
    return flags(**{**job.settings, **settings, "output_dir": run_dir})


def _attempt(run_dir, run):
    assert len(os.listdir("/proc/self/task")) == 1, "a fork would lose the other threads"
    log = run_dir.with_suffix(".points")
    log.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        _become(run_dir.with_suffix(".log"), lambda: run(log))
    return Ending(_wait(pid), read_log(log))


def _become(output, run):
    """In the child: what a process started by a shell would be. Does not return."""
    code = 1
    try:
        os.setsid()
        os.chdir(ROOT)
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(file, stream)
        sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
        run()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _wait(pid):
    deadline = time.monotonic() + ATTEMPT_SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.01)
    kill_all(psutil.Process(pid))
    os.waitpid(pid, 0)
    return -1


def kill_all(leader):
    with suppress(psutil.NoSuchProcess):
        for process in (leader, *leader.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def remaining(seconds=LEAVE_SECONDS):
    """Wait for all that earlier attempts have left running; names of what does not end."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        left = psutil.Process().children(recursive=True)
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    names = [_name(process) for process in left]
    for process in left:
        kill_all(process)
    return names


def _name(process):
    """The command line, which a process that has just ended no longer has."""
    try:
        return " ".join(process.cmdline()[:4])
    except psutil.NoSuchProcess:
        return f"process {process.pid}, ending"


def log_tail(run_dir: Path, characters=3000):
    """The end of what the run has printed."""
    return run_dir.with_suffix(".log").read_text()[-characters:]
