"""One of three ranks is killed, or stops: the others say so and leave, and the run goes on."""

import os
import re
import signal
import time

import pytest

from sft_dist.checkpoint import checkpoint_step, damage, list_checkpoints
from tests.end_to_end.runs import TORCHRUN, losses, on_ranks, run, wait_for
from tests.faults.tiny_runs import (
    ended,
    launched,
    log_of,
    make_inputs,
    rank_processes,
    status,
)

pytestmark = pytest.mark.slow
TIMEOUT = 8
LEAVE_SECONDS = 90
SETTINGS = {
    "max_seq_length": 128, "batch_size": 4, "global_batch_size": 12, "num_epochs": 100,
    "max_steps": 400, "save_steps": 4, "eval_placement": "off", "collective_timeout": TIMEOUT,
}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def disturbed(inputs, run_dir, rank, number):
    """A run whose `rank` gets a signal after a checkpoint; what it printed, seconds to its end."""
    launcher = launched(on_ranks(3), run_dir, **inputs, **SETTINGS)
    wait_for(lambda: list_checkpoints(run_dir) and max(losses(run_dir), default=0) >= 6, launcher)
    began = time.monotonic()
    os.kill(rank_processes(launcher)[rank].pid, number)
    assert ended(launcher, run_dir, LEAVE_SECONDS) != 0
    return log_of(run_dir).read_text(), time.monotonic() - began


def test_the_error_of_one_rank_is_what_all_show(inputs, tmp_path):
    run_dir = tmp_path / "run"
    command = [*TORCHRUN, "2", "-m", "tests.faults.failing_rank"]
    launcher = launched(command, run_dir, **inputs, **SETTINGS, engine="torch")
    assert ended(launcher, run_dir, LEAVE_SECONDS) != 0
    fault = "rank 1: ValueError: a fault of this rank alone"
    assert status(run_dir)["state"] == "failed"
    assert f"step 3, computing: another rank has failed. {fault}" in status(run_dir)["reason"]
    printed = log_of(run_dir).read_text()
    end = printed[printed.rindex("Root Cause") :]
    assert "rank      : 1" in end
    assert "a fault of this rank alone" in end


def test_when_a_rank_is_killed_the_others_leave_and_say_how_to_go_on(inputs, tmp_path):
    run_dir = tmp_path / "run"
    printed, seconds = disturbed(inputs, run_dir, 2, signal.SIGKILL)
    assert seconds < 30
    assert re.search(r"error: step \d+, .*another rank has left .*checkpoint-\d+", printed)
    assert "--resume_from_checkpoint latest --output_dir" in printed
    end = printed[printed.rindex("Root Cause") :]  # torchrun: the first failure, shown last
    assert "rank      : 2" in end
    assert "SIGKILL" in end
    assert status(run_dir)["state"] == "failed"
    assert status(run_dir)["reason"].startswith("RanksError: step ")
    found = list_checkpoints(run_dir)
    assert not any(damage(path) for path in found)
    step = checkpoint_step(found[-1])
    run(on_ranks(3), resume_from_checkpoint="latest", output_dir=run_dir, max_steps=step + 2)
    assert max(losses(run_dir)) >= step + 2


@pytest.mark.exhaustive  # the same wait as for a host that is cut off: test_namespaces.py
def test_a_rank_that_stands_still_is_named_with_its_step(inputs, tmp_path):
    run_dir = tmp_path / "run"
    printed, seconds = disturbed(inputs, run_dir, 1, signal.SIGSTOP)
    assert TIMEOUT < seconds < LEAVE_SECONDS
    told = re.search(
        r"rank [02] has not moved for \d+ s \(step (\d+), .*\): "
        r"no sign of life of rank 1, last seen at step (\d+)", printed,
    )  # fmt: skip
    assert told, printed[-3000:]
    assert int(told[2]) <= int(told[1])
    assert status(run_dir)["state"] == "failed"
    assert "no sign of life of rank 1" in status(run_dir)["reason"]
    assert not any(damage(path) for path in list_checkpoints(run_dir))
