"""Real training jobs in a private Slurm: interrupted and queued again; served by a second job."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sft_dist.checkpoint import checkpoint_step, list_checkpoints
from sft_dist.tracking.record import read_rows
from tests.end_to_end.runs import evaluations, flags, losses
from tests.faults.tiny_runs import make_inputs, status
from tests.faults.wandb_files import fragments, training_rows

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TRAINING = {
    "max_seq_length": 128, "batch_size": 4, "global_batch_size": 8, "num_epochs": 100,
    "max_eval_samples": 12, "generation_max_length": 24, "log_steps": 1,
}  # fmt: skip


@pytest.fixture
def cluster(slurm, tmp_path):
    """Runs commands of the private Slurm in `tmp_path`; jobs of one rank a node."""
    environment = {
        **slurm,
        "SFT_ROOT": str(ROOT),
        "SITE_VENV": "",
        "NPROC_PER_NODE": "1",
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "offline",
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{slurm['PATH']}",
    }

    def call(*command):
        done = subprocess.run(
            [str(word) for word in command],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    return call


def submitted(cluster, script, *words, nodes=1):
    resources = ["--gpus-per-node=0", "--mem=100M", "--time=20", "--cpus-per-task=1"]
    options = ["--parsable", f"--nodes={nodes}", "--oversubscribe", *resources]
    return cluster("sbatch", *options, ROOT / "slurm" / script, *words)


def wait_for(condition, directory, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, said(directory)
        time.sleep(0.1)


def said(directory):
    return "\n".join(f"{path}:\n{path.read_text()[-3000:]}" for path in directory.glob("*.out"))


def has_ended(run_dir):
    return status(run_dir).get("state") in ("finished", "failed")


def at_step(run_dir, step):
    return lambda: max(losses(run_dir), default=0) >= step


def test_a_job_on_two_nodes_that_is_queued_again_twice_ends_as_an_unbroken_one(cluster, tmp_path):
    inputs = make_inputs(tmp_path)
    training = {**inputs, **TRAINING, "max_steps": 60, "save_steps": 6, "eval_steps": 30}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    job = submitted(cluster, "train.sh", *flags(**training, output_dir=broken), nodes=2)
    wait_for(at_step(broken, 8), tmp_path)
    cluster("scancel", "--signal=USR1", "--batch", job)  # what Slurm sends before the time limit
    wait_for(lambda: status(broken).get("state") == "requeue", tmp_path)
    stopped = checkpoint_step(list_checkpoints(broken)[-1])
    wait_for(at_step(broken, stopped + 8), tmp_path)
    cluster("scontrol", "requeue", job)
    training |= {"eval_placement": "off", "wandb_mode": "disabled", "output_dir": whole}
    submitted(cluster, "train.sh", *flags(**training), nodes=2)
    wait_for(lambda: has_ended(broken) and has_ended(whole), tmp_path)

    assert status(broken)["state"] == status(whole)["state"] == "finished", said(tmp_path)
    assert "Restarts=2" in cluster("scontrol", "show", "job", "--oneliner", job)
    assert losses(broken) == losses(whole)
    assert [row["step"] for row in read_rows(broken) if "step" in row] == list(range(1, 61))
    ends = [path / "checkpoint-60" / "model.safetensors" for path in (broken, whole)]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    assert {0, 30, 60} <= evaluations(broken).keys()
    assert len({part.run_id for part in fragments(broken) if part.run_id}) == 1
    assert training_rows(broken).keys() <= losses(broken).keys()


def test_a_second_job_serves_a_run_comes_back_after_its_time_and_ends_with_it(cluster, tmp_path):
    run_dir = tmp_path / "run"
    training = {
        **make_inputs(tmp_path), **TRAINING, "max_steps": 6, "save_steps": 3, "eval_steps": 3,
        "eval_placement": "external", "engine": "torch", "output_dir": run_dir,
    }  # fmt: skip
    server = submitted(cluster, "evaluate.sh", "--serve", run_dir)  # before there is a run
    submitted(cluster, "train.sh", *flags(**training))
    output = tmp_path / f"sft-evaluate-{server}.out"
    wait_for(lambda: output.is_file() and "serving" in output.read_text(), tmp_path)
    cluster("scancel", "--signal=USR1", "--batch", server)
    wait_for(lambda: has_ended(run_dir), tmp_path)
    wait_for(lambda: "left: the run has ended" in output.read_text(), tmp_path)
    assert output.read_text().count("serving") == 2, said(tmp_path)
    assert status(run_dir)["state"] == "finished", said(tmp_path)
    assert sorted(evaluations(run_dir)) == [0, 3, 6]
    for step in (0, 3, 6):
        (summary,) = (run_dir / "evaluations").glob(f"step-{step:06d}/*/summary.json")
        assert json.loads(summary.read_text())["generation"]["worker"]
