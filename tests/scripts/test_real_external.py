"""A training job and the job that serves its evaluations, both real, in a private Slurm."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sft_dist.tracking.record import read_rows
from tests.end_to_end.runs import flags
from tests.faults.tiny_runs import make_inputs, status

ROOT = Path(__file__).parents[2]
TRAINING = {
    "max_seq_length": 128, "batch_size": 4, "global_batch_size": 8, "max_steps": 6,
    "save_steps": 3, "eval_steps": 3, "max_eval_samples": 12, "generation_max_length": 24,
    "eval_placement": "external", "engine": "torch", "wandb_mode": "disabled",
}  # fmt: skip


@pytest.fixture
def sbatch(slurm, tmp_path):
    environment = {
        **{key: value for key, value in slurm.items() if not key.startswith(("SITE_", "SLURM_J"))},
        "SFT_ROOT": str(ROOT),
        "SITE_VENV": "",
        "SITE_MASTER_ADDR": "127.0.0.1",  # the names of the virtual nodes are in no DNS
        "NPROC_PER_NODE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{slurm['PATH']}",
    }

    def submit(*words):
        resources = ["--parsable", "--gpus-per-node=0", "--mem=100M", "--time=10"]
        return subprocess.run(
            ["sbatch", *resources, "--cpus-per-task=1", "--oversubscribe", *map(str, words)],
            env=environment, cwd=tmp_path, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip

    return submit


@pytest.mark.slow
def test_a_second_job_serves_a_run_comes_back_after_its_time_and_ends_with_it(
    sbatch, slurm, tmp_path
):
    run_dir = tmp_path / "run"
    inputs = make_inputs(tmp_path)
    server = sbatch(ROOT / "slurm" / "evaluate.sh", "--serve", run_dir)  # before there is a run
    sbatch(ROOT / "slurm" / "train.sh", *flags(**inputs, **TRAINING, output_dir=run_dir))
    output = tmp_path / f"sft-evaluate-{server}.out"
    _wait(lambda: output.is_file() and "serving" in output.read_text(), tmp_path)
    # What Slurm sends before the time limit.
    command = ["scancel", "--signal=USR1", "--batch", server]
    subprocess.run(command, env=slurm, check=True)
    _wait(lambda: status(run_dir).get("state") in ("finished", "failed"), tmp_path)
    _wait(lambda: "left: the run has ended" in output.read_text(), tmp_path)
    assert output.read_text().count("serving") == 2, _said(tmp_path)
    assert status(run_dir)["state"] == "finished", _said(tmp_path)
    scored = [row["eval/step"] for row in read_rows(run_dir) if "eval/accuracy" in row]
    assert sorted(scored) == [0, 3, 6]
    for step in (0, 3, 6):
        (summary,) = (run_dir / "evaluations").glob(f"step-{step:06d}/*/summary.json")
        assert json.loads(summary.read_text())["generation"]["worker"]


def _wait(condition, directory, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, _said(directory)
        time.sleep(0.25)


def _said(directory):
    return "\n".join(f"{path}:\n{path.read_text()[-3000:]}" for path in directory.glob("*.out"))
