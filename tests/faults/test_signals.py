"""Real runs that are asked to stop in every way there is, or killed: all is kept, nothing twice."""

import os
import random
import signal

import pytest

from sft_dist.checkpoint import checkpoint_step, damage
from sft_dist.tracking.record import read_rows
from tests.end_to_end.runs import PLAIN, ROOT, kill, losses, run, wait_for
from tests.faults.signals import NUM_TRAIN, TRAINING, Run, in_training
from tests.faults.tiny_runs import ended, launched, make_inputs, status, tail
from tests.faults.wandb_files import fragments, training_rows

pytestmark = pytest.mark.slow

SCRIPT = [str(ROOT / "launch" / "train_single_node.sh")]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"), num_train=NUM_TRAIN)


@pytest.fixture(scope="module")
def stopped_twice(inputs, tmp_path_factory):
    """A run on four ranks of which one got SIGUSR1, resumed, and again; the two trials."""
    this = Run(tmp_path_factory.mktemp("signals") / "run", **inputs, **TRAINING)
    rng = random.Random(5)
    return this, [in_training(this, rng) for _ in range(2)]


def test_one_signal_to_one_of_four_ranks_makes_all_save_and_leave_after_the_step(stopped_twice):
    this, trials = stopped_twice
    assert [trial.faults for trial in trials] == [[], []]
    steps = [row["step"] for row in read_rows(this.run_dir) if "step" in row]
    assert steps == list(range(1, trials[-1].stopped + 1))


def test_the_wandb_run_goes_on_after_a_requeue_and_after_a_kill(stopped_twice):
    this, trials = stopped_twice
    assert training_rows(this.run_dir).keys() == set(range(1, trials[-1].stopped + 1))
    resume = {"resume_from_checkpoint": "latest", "save_steps": 2}
    launcher = launched(PLAIN, this.run_dir, **resume)
    began = trials[-1].stopped
    wait_for(lambda: max(losses(this.run_dir)) > began + 3, launcher)
    kill(launcher)
    killed_at = max(losses(this.run_dir))
    run(PLAIN, **resume, max_runtime=1, output_dir=this.run_dir)  # one step more than was saved
    parts = fragments(this.run_dir)
    assert [part.is_ended for part in parts] == [True, True, False, True]
    ids = [part.run_id for part in parts if part.is_ended]
    assert len({*ids, parts[2].run_id or ids[0]}) == 1  # a kill may come before the id is on disk
    again = checkpoint_step(this.newest())
    assert began < again <= killed_at + 1
    found, recorded = training_rows(this.run_dir), losses(this.run_dir)
    # What wandb had not put on the disk at the kill is only in metrics.jsonl (docs/checkpoints.md).
    assert {*range(1, began + 1), again} <= {*found} <= {*recorded}
    assert list(recorded) == list(range(1, max(again, killed_at) + 1))
    assert all(found[step]["train/loss"] == recorded[step] for step in found)


def left_in_order(launcher, run_dir, reason):
    ended(launcher, run_dir)
    told = status(run_dir)
    assert told["state"] == "requeue", tail(run_dir)
    assert reason in told["reason"]
    newest = Run(run_dir).newest()
    assert checkpoint_step(newest) == max(losses(run_dir)) == told["step"]
    assert not damage(newest)
    return told["step"]


def test_the_script_that_launches_passes_signals_on_and_the_time_limit_is_kept(
    inputs, tmp_path, monkeypatch
):
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    monkeypatch.setenv("PATH", f"{os.path.dirname(PLAIN[0])}:{os.environ['PATH']}")
    run_dir = tmp_path / "run"
    settings = {**TRAINING, "engine": "torch", "save_steps": 1000}
    launcher = launched(SCRIPT, run_dir, **inputs, **settings)
    wait_for(lambda: 2 in losses(run_dir), launcher)
    (run_dir / "SAVE").touch()
    wait_for(lambda: Run(run_dir).newest() is not None, launcher)
    assert checkpoint_step(Run(run_dir).newest()) < 8  # the end of the epoch is a save anyway
    assert not (run_dir / "SAVE").exists()
    launcher.send_signal(signal.SIGUSR1)
    first = left_in_order(launcher, run_dir, "SIGUSR1")

    launcher = launched(SCRIPT, run_dir, resume_from_checkpoint="latest")
    wait_for(lambda: first + 1 in losses(run_dir), launcher)
    os.killpg(launcher.pid, signal.SIGINT)  # as Ctrl-C: to all of them, and torchrun's comes after
    second = left_in_order(launcher, run_dir, "SIGINT")

    launcher = launched(SCRIPT, run_dir, resume_from_checkpoint="latest", max_runtime=1)
    assert left_in_order(launcher, run_dir, "--max_runtime 1") == second + 1
    assert [row["step"] for row in read_rows(run_dir)] == list(range(1, second + 2))
