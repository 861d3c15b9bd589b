"""slurm/train.sh in a private Slurm of two nodes, with the stub trainer."""

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUB_PACKAGE = Path(__file__).parent / "stub"


@pytest.fixture
def cluster(slurm, tmp_path):
    """Runs commands of the private Slurm in `tmp_path`, where the stub trainer lies."""
    shutil.copytree(STUB_PACKAGE / "sft_dist", tmp_path / "sft_dist")
    environment = {
        **slurm,
        "SFT_ROOT": str(ROOT),
        "NPROC_PER_NODE": "2",
        "OMP_NUM_THREADS": "1",
    }

    def call(*command, behaviour="finish"):
        reply = subprocess.run(
            [str(word) for word in command],
            env=environment | {"STUB_BEHAVIOUR": behaviour},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert reply.returncode == 0, f"{command}: {reply.stdout}{reply.stderr}"
        return reply.stdout.strip()

    def submit(behaviour):
        resources = ["--nodes=2", "--gpus-per-node=0", "--mem=100M", "--time=10"]
        arguments = ["--output_dir", "run", "--data_path", "two words"]
        script = ROOT / "slurm" / "train.sh"
        return call("sbatch", "--parsable", *resources, script, *arguments, behaviour=behaviour)

    call.submit = submit
    return call


def wait_until(condition, what, seconds=90):
    for _ in range(seconds * 4):
        if condition():
            return
        time.sleep(0.25)
    raise AssertionError(f"not within {seconds} seconds: {what}")


def state_of(cluster, number):
    job_line = cluster("scontrol", "show", "job", "--oneliner", number)
    return re.search(r"JobState=(\w+)", job_line)[1]


@pytest.mark.slow
def test_two_real_nodes_train_are_interrupted_requeued_and_finish(cluster, tmp_path):
    status = tmp_path / "run" / "status.json"
    number = cluster.submit("wait")
    wait_until(status.is_file, "the trainer starts")
    # What Slurm sends before the time limit.
    cluster("scancel", "--signal=USR1", "--batch", number)
    wait_until(lambda: "requeue" in status.read_text(), "the trainer leaves")
    wait_until(lambda: state_of(cluster, number) == "COMPLETED", "the second attempt ends")
    output = (tmp_path / f"sft-{number}.out").read_text()
    assert json.loads(status.read_text())["state"] == "finished", output
    for attempt in range(2):
        for rank in range(4):
            path = tmp_path / "run" / "seen" / f"attempt-{attempt}-rank-{rank}.json"
            seen = json.loads(path.read_text())
            assert seen["argv"][-6:] == [
                "--data_path",
                "two words",
                "--output_dir",
                "run",
                "--resume_from_checkpoint",
                "latest",
            ]
            assert seen["environment"]["WORLD_SIZE"] == "4"
            # The second node holds ranks 2 and 3.
            assert seen["environment"]["SLURM_NODEID"] == str(rank // 2)
    logs = list((tmp_path / "run" / "logs").glob("job-*-attempt-*/node-*/*/attempt_0/*/stdout.log"))
    assert len(logs) == 8
    assert all("says hello" in log.read_text() for log in logs)


@pytest.mark.slow
def test_a_real_job_that_is_cancelled_saves_and_stays_cancelled(cluster, tmp_path):
    status = tmp_path / "run" / "status.json"
    number = cluster.submit("wait_for_term")
    wait_until(status.is_file, "the trainer starts")
    cluster("scancel", number)
    wait_until(lambda: state_of(cluster, number) == "CANCELLED", "the job ends")
    assert json.loads(status.read_text())["state"] == "requeue"
    assert "Restarts=0" in cluster("scontrol", "show", "job", "--oneliner", number)
